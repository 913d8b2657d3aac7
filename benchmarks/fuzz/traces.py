"""Writes one random trace: a sound file of a known format, then damage at random places."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

ODD: tuple[Any, ...] = (
    *(
        None,
        -1,
        0,
        1.5,
        10**30,
        2**63 - 1,
        float("inf"),
        float("nan"),
        "",
        "x",
        "1e5",
        "NULL",
        True,
        [],
        [1],
        {},
    ),
    *("é" * 3, "1" * 30, "\0", "2024-01-01 00:00:00", {"a": {"b": [{}] * 3}}),
)
MORE = ("session", "priority", "prefix_hashes", "model", "pipeline", "output_limit")


def write_trace(rng: random.Random, folder: Path) -> Path:
    """Write a trace of a random kind and return its path."""
    rows = [
        {"arrival_s": index / 2, "input_tokens": rng.randrange(1, 500), "output_tokens": rng.randrange(1, 50)}
        for index in range(rng.randrange(1, 9))
    ]
    for row in rows:
        if rng.random() < 0.2:
            row[rng.choice(MORE)] = rng.choice(ODD)
        if rng.random() < 0.1:
            del row[rng.choice(list(row))]
    kind = rng.choice(("csv", "jsonl", "parquet"))
    path = folder / f"trace.{kind}"
    path.unlink(missing_ok=True)
    {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[kind](rng, rows, path)
    if rng.random() < 0.3:
        _damage(rng, path)
    return path


def _csv(rng: random.Random, rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    mark = rng.choice((",", ",", ",", ";", "\t"))
    lines = [mark.join(names), *(mark.join(str(row.get(name, "")) for name in names) for row in rows)]
    path.write_text(rng.choice(("", "", "\ufeff")) + "\n".join(lines) + "\n", encoding="utf-8")


def _jsonl(rng: random.Random, rows: list[dict[str, Any]], path: Path) -> None:
    lines = [json.dumps(row) for row in rows]
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), "[" * rng.choice((1, 50, 5000)))
    if rng.random() < 0.1:
        lines.append('{"arrival_s": 1, "arrival_s": 2, "input_tokens": 3, "output_tokens": 4}')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parquet(rng: random.Random, rows: list[dict[str, Any]], path: Path) -> None:
    import polars as pl

    kinds = (
        pl.Float64,
        pl.Int64,
        pl.Utf8,
        pl.Duration("ms"),
        pl.Time,
        pl.Datetime("us"),
        pl.Boolean,
        pl.Float32,
    )
    try:
        frame = pl.DataFrame([{name: row.get(name) for name in rows[0]} for row in rows], strict=False)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):  # values that no column holds
        frame = pl.DataFrame({"arrival_s": [0.5], "input_tokens": [3], "output_tokens": [2]})
    if rng.random() < 0.4 and frame.width:
        name = rng.choice(frame.columns)
        with contextlib.suppress(pl.exceptions.PolarsError):
            frame = frame.with_columns(pl.col(name).cast(rng.choice(kinds), strict=False))
    try:
        frame.write_parquet(path)
    except pl.exceptions.PolarsError:  # a type that the format does not have
        frame.select(pl.lit(1).alias("arrival_s")).write_parquet(path)


def _damage(rng: random.Random, path: Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 20))):
        if not data:
            break
        place = rng.randrange(len(data))
        way = rng.random()
        if way < 0.4:
            data[place] = rng.randrange(256)
        elif way < 0.7:
            del data[place : place + rng.choice((1, 4, 100))]
        else:
            data[place:place] = bytes(rng.randrange(256) for _ in range(rng.choice((1, 3))))
    path.write_bytes(bytes(data))
