"""Arrival processes. Each module is one process, found by its registered name."""

from __future__ import annotations

from hermes_flow.workload.arrivals.process import Load, arrival_processes, parse_arrivals

__all__ = ["Load", "arrival_processes", "parse_arrivals"]
