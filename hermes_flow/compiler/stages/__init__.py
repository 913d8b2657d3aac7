"""The kinds of stages a pipeline may have: one module per kind, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.compiler.stages.kind import RequestSizes, StageKind, stage_kinds

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["RequestSizes", "StageKind", "stage_kinds"]
