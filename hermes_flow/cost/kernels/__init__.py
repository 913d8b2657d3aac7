"""The cost model ``kernels``: measured operator tables are read, checked and reduced to step costs."""

from __future__ import annotations

from hermes_flow.cost.kernels.model import Kernels

__all__ = ["Kernels"]
