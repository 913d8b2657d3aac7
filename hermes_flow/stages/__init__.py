"""The kinds of stages of a pipeline. Each module is one kind, found by its registered name."""

from __future__ import annotations

from hermes_flow.stages.kind import RequestSizes, StageKind, stage_kinds

__all__ = ["RequestSizes", "StageKind", "stage_kinds"]
