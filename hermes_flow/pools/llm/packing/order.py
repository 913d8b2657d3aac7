"""The registry of packing orders."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.program.packing import PackingOrder

packing_orders: Registry[PackingOrder] = Registry(
    "packing order", tag="order", package=__package__, methods=("key", "oracle")
)
