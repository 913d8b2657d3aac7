"""In which order waiting sequences are admitted: one module per order, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.batching.packing.order import PackingOrder, packing_orders

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["PackingOrder", "packing_orders"]
