"""Traces that tests write: the header of the native format, and a row per request."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

COLUMNS = "arrival_s,input_tokens,output_tokens"


def write_trace(path: Path, rows: Iterable[tuple[object, ...]], *more: str) -> list[str]:
    """Write requests of COLUMNS and ``more`` columns to a CSV file; return the overrides that replay them."""
    lines = [",".join([COLUMNS, *more]), *(",".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return ["workload=trace", f"workload.path={path}"]
