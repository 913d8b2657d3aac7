"""Steps from measured operator tables: read, checked, interpolated and reduced to the step object of every model."""

from __future__ import annotations

from hermes_flow.cost.kernels.model import Kernels

__all__ = ["Kernels"]
