"""The errors of benchmark runs of SGLang on servers that were not warmed up, which no table compares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import fits_left_out, silicon
from benchmarks.error_text import signed


def figures(collection: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Return how many of these runs the collection has, and their median errors as if they had been warmed up."""
    rows = silicon.cold(collection)
    found = [silicon.simulate(row, edit=fits_left_out.left_out(row)) for row in rows]
    ttft, tpot = 100.0 * np.median([each.errors for each in found if each.problem is None], axis=0)
    return {"cold_rows": str(len(rows)), "cold_ttft": signed(float(ttft)), "cold_tpot": signed(float(tpot))}
