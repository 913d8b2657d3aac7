"""Requests from files: one module per trace format, found by its registered name or by its columns."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.workload.traces.format import trace_formats
from hermes_flow.workload.traces.reader import read_trace

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["read_trace", "trace_formats"]
