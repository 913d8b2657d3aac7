"""Packing orders: they sort the waiting sequences. Each module is one order, found by its name."""

from __future__ import annotations

from hermes_flow.pools.llm.packing.order import packing_orders
from hermes_flow.program.packing import PackingOrder

__all__ = ["PackingOrder", "packing_orders"]
