"""When requests come: one module per arrival process, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.workload.arrivals.process import Load, arrival_processes, parse_arrivals

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Load", "arrival_processes", "parse_arrivals"]
