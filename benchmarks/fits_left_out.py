"""Gives a benchmark run the constants that are fitted without it, for each constant that is fitted to such runs."""

from __future__ import annotations

from typing import Any

from benchmarks import dense_launches, elementwise_times, engine_constants
from hermes_flow.validation.replay import Edit


def left_out(row: dict[str, Any]) -> Edit | None:
    """Return what sets the constants that are fitted without a run's GPU or model, or None without such a fit."""
    fits = (engine_constants, elementwise_times, dense_launches)
    edits = [edit for each in fits if (edit := each.left_out(row)) is not None]
    if not edits:
        return None

    def all_of_them(config: Any) -> Any:
        for edit in edits:
            config = edit(config)
        return config

    return all_of_them
