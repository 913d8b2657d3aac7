"""The kinds of stages a pipeline may have: one module per kind, found by its registered name."""

from __future__ import annotations

from hermes_flow.stages.kind import RequestSizes, StageKind, stage_kinds

__all__ = ["RequestSizes", "StageKind", "stage_kinds"]
