"""In which order waiting sequences are admitted: one module per order, found by its registered name."""

from __future__ import annotations

from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import PackingOrder

__all__ = ["PackingOrder", "packing_orders"]
