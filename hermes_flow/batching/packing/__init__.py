"""In which order waiting sequences are admitted: one module per order, found by its registered name."""

from __future__ import annotations

from hermes_flow.batching.packing.order import PackingOrder, packing_orders

__all__ = ["PackingOrder", "packing_orders"]
