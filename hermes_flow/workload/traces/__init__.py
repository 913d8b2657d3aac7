"""Trace formats. Each module is one format, found by its registered name or by its columns."""

from __future__ import annotations

from hermes_flow.workload.traces.format import trace_formats
from hermes_flow.workload.traces.reader import read_trace

__all__ = ["read_trace", "trace_formats"]
