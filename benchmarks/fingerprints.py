"""Fingerprints of a result: a hash of every column of its tables, and of every part of its summary."""

from __future__ import annotations

import hashlib
import json
from typing import Any, TypeAlias

import polars as pl

import hermes_flow as hf

# Speed of the simulator, which is no answer of the simulation; and error bars, which follow from the other figures
# and from the table of errors of left-out runs.
NOT_COMPARED = frozenset({"engine", "error"})
DIGITS = 16  # hexadecimal, of SHA-256: two different columns share a hash with probability 2**-64

Fingerprint: TypeAlias = dict[
    str, Any
]  # {"rows": int, "columns": {name: hash}}; "rows" is None for the summary


def fingerprints(result: hf.Result, steps: bool) -> dict[str, Fingerprint]:
    """Return the fingerprint of every table by its name; that of single steps only if ``steps``.

    Two tables have equal fingerprints only if their columns agree in name, order, data type, nulls and every bit of
    every float. Raises TypeError for a column whose data type has no exact form here.
    """
    names = ("requests", "stages", "clients", "links", *(("steps",) if steps else ()))
    found = {name: _table(getattr(result, name)) for name in names}
    parts = {key: value for key, value in result.summary.items() if key not in NOT_COMPARED}
    found["summary"] = {"rows": None, "columns": {key: _text(value) for key, value in parts.items()}}
    return found


def difference(before: Fingerprint | None, now: Fingerprint | None) -> str | None:
    """Return in words how a table differs from what it was, or None where it does not."""
    if before is None or now is None:
        return "is new" if before is None else "is missing"
    if before == now and list(before["columns"]) == list(now["columns"]):
        return None
    words = []
    if before["rows"] != now["rows"]:
        words.append(f"{now['rows']:,} rows instead of {before['rows']:,}")
    old, new = before["columns"], now["columns"]
    for what, names in (
        ("changed", [name for name in old if name in new and old[name] != new[name]]),
        ("missing", [name for name in old if name not in new]),
        ("new", [name for name in new if name not in old]),
    ):
        if names:
            words.append(f"{what}: {', '.join(names)}")
    return "; ".join(words) or "the columns have another order"


def _table(frame: pl.DataFrame) -> Fingerprint:
    return {"rows": frame.height, "columns": {column.name: _column(column) for column in frame.get_columns()}}


def _column(column: pl.Series) -> str:
    """Return the hash of a column's data type, nulls and values."""
    digest = hashlib.sha256(f"{column.dtype}\n{len(column)}\n".encode())
    digest.update(column.is_null().to_numpy().tobytes())
    if column.dtype.is_numeric() or column.dtype == pl.Boolean:
        values = column.fill_null(False if column.dtype == pl.Boolean else 0).to_numpy()
        digest.update(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
    elif column.dtype == pl.String:
        digest.update(json.dumps(column.to_list()).encode())
    else:
        raise TypeError(f"column {column.name} has the data type {column.dtype}; expected numbers or text")
    return digest.hexdigest()[:DIGITS]


def _text(value: Any) -> str:
    """Return the hash of a part of the summary as summary.json has it: floats by their shortest exact form."""
    return hashlib.sha256(json.dumps(value, allow_nan=False).encode()).hexdigest()[:DIGITS]
