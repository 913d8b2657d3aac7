"""Trace formats. Each module is one format, found by its registered name or by its columns."""

from __future__ import annotations

from hermes_flow.workload.traces.format import trace_formats

__all__ = ["trace_formats"]
