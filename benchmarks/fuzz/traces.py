"""Draws one random trace: a sound file of a known format, then odd cells, lines and bytes at random places."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, -1, 0, 1.5, 10**30, 2**63 - 1, 10**11, float("inf"), float("nan"), "", "x", "1e5", "NULL", True),
    *([], [1], [1, 2, 3] * 50, {}, "é" * 3, "1" * 30, "\0", "2024-01-01 00:00:00", {"a": {"b": [{}] * 3}}),
)
MORE = (
    *(
        "session",
        "priority",
        "prefix_hashes",
        "model",
        "pipeline",
        "output_limit",
        "answer_hashes",
        "delay_ms",
    ),
    *("ignore_eos", "images"),
)
_HOSTILE_LINES = (
    *("[" * 5000, "[1, 2]", "null", '"x"', "{}", "}", "\0" * 8, "1,2,3,4,5,6,7", ",,,,", '"', "\ufeff"),
    '{"arrival_s": 1, "arrival_s": 2, "input_tokens": 3, "output_tokens": 4}',
)


@dataclass(frozen=True, slots=True)
class RandomTrace:
    """A trace: its ``parts`` are lines of text, or one text that stands for the bytes of a Parquet file."""

    name: str
    parts: tuple[str, ...]
    data: bytes | None = None
    damage: tuple[tuple[float, int, bytes], ...] = ()

    def write(self, folder: Path, lines: tuple[str, ...]) -> Path:
        """Write the file with these lines and return its path."""
        path = folder / self.name
        text = ("\n".join(lines) + "\n").encode(errors="surrogatepass")
        data = bytearray(text if self.data is None else self.data)
        for place, cut, put in self.damage:
            at = int(place * len(data))
            data[at : at + cut] = put
        path.write_bytes(gzip.compress(bytes(data)) if self.name.endswith(".gz") else bytes(data))
        return path


def random_trace(rng: random.Random) -> RandomTrace:
    """Draw a trace of a random kind."""
    kind = rng.choice(("csv", "jsonl", "parquet", "csv", "jsonl", "json"))
    damage = tuple(_damage(rng)) if rng.random() < 0.25 else ()
    if kind == "json":
        return RandomTrace("trace.json", (_log(rng),), None, damage)
    rows = _rows(rng)
    if kind == "parquet":
        return RandomTrace("trace.parquet", ("a Parquet file",), _parquet(rng, rows), damage)
    lines = _csv(rng, rows) if kind == "csv" else [json.dumps(row) for row in rows]
    if rng.random() < 0.15:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(_HOSTILE_LINES))
    if rng.random() < 0.1:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
    name = f"trace.{kind}" + (".gz" if rng.random() < 0.1 else "")
    return RandomTrace(name, tuple(lines), None, damage)


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    """Draw rows of the native format, of Mooncake's, Azure's or Vidur's, with odd cells."""
    count = rng.randrange(1, 9)
    kind = rng.choice(("native", "native", "native", "mooncake", "azure", "vidur"))
    rows = []
    for index in range(count):
        tokens, answer = rng.randrange(1, 500), rng.randrange(1, 50)
        rows.append(
            {
                "native": {"arrival_s": index / 2, "input_tokens": tokens, "output_tokens": answer},
                "mooncake": {
                    "timestamp": index * 500,
                    "input_length": tokens,
                    "output_length": answer,
                    "hash_ids": list(range(-(-tokens // 512))),
                },
                "azure": {
                    "TIMESTAMP": f"2023-11-16 18:15:{index:02}.6805900",
                    "ContextTokens": tokens,
                    "GeneratedTokens": answer,
                },
                "vidur": {"arrived_at": index / 2, "num_prefill_tokens": tokens, "num_decode_tokens": answer},
            }[kind]
        )
    more = [name for name in MORE if rng.random() < 0.08]
    for index, row in enumerate(rows):
        for name in more:
            row[name] = _sound(name, index, row)
        if rng.random() < 0.2:
            row[rng.choice((*MORE, *row))] = rng.choice(ODD)
        if rng.random() < 0.08:
            del row[rng.choice(list(row))]
    return rows


def _sound(name: str, index: int, row: dict[str, Any]) -> Any:
    """Return a cell that the column may have."""
    prompt = next((row[key] for key in ("input_tokens", "input_length", "ContextTokens") if key in row), 16)
    return {
        "prefix_hashes": list(range(prompt // 16)) if isinstance(prompt, int) else [],
        "answer_hashes": [],
        "model": "llama3_8b",
        "pipeline": "chat",
        "output_limit": 64,
        "ignore_eos": False,
    }.get(name, index)


def _csv(rng: random.Random, rows: list[dict[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for row in rows for name in row))
    mark = rng.choice((",", ",", ",", ",", ";", "\t"))
    quoted = [[_cell(row.get(name, "")) for name in names] for row in rows]
    return [rng.choice(("", "", "\ufeff")) + mark.join(names), *(mark.join(row) for row in quoted)]


def _cell(value: Any) -> str:
    text = str(value)
    return f'"{text}"' if "," in text else text


def _log(rng: random.Random) -> str:
    """Return the result of a benchmark of vLLM, with odd values."""
    count = rng.randrange(1, 6)
    log: dict[str, Any] = {
        "request_rate": rng.choice(("inf", 4.0, 0.0, -1)),
        "max_concurrency": rng.choice((None, 2)),
        "duration": 3.0,
        "input_lens": [rng.randrange(1, 300) for _ in range(count)],
        "output_lens": [3] * count,
        "ttfts": [0.1] * count,
        "itls": [[0.01, 0.02]] * count,
        "errors": [""] * count,
    }
    for _ in range(rng.choice((0, 1, 2))):
        name = rng.choice(list(log))
        value = log[name]
        if isinstance(value, list) and rng.random() < 0.6:
            log[name] = [*value[:-1], rng.choice(ODD)]
        else:
            log[name] = rng.choice(ODD)
    return json.dumps(log)


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    import io

    import polars as pl

    kinds = (
        *(
            pl.Float64,
            pl.Int64,
            pl.Utf8,
            pl.Duration("ms"),
            pl.Time,
            pl.Datetime("us"),
            pl.Boolean,
            pl.Float32,
        ),
        *(pl.Int8, pl.UInt64, pl.Date, pl.Categorical, pl.Binary, pl.Decimal(20, 3)),
    )
    try:
        frame = pl.DataFrame([{name: row.get(name) for name in rows[0]} for row in rows], strict=False)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):  # values that no column holds
        frame = pl.DataFrame({"arrival_s": [0.5], "input_tokens": [3], "output_tokens": [2]})
    if rng.random() < 0.5 and frame.width:
        name = rng.choice(frame.columns)
        with contextlib.suppress(pl.exceptions.PolarsError):
            frame = frame.with_columns(pl.col(name).cast(rng.choice(kinds), strict=False))
    file = io.BytesIO()
    try:
        frame.write_parquet(file)
    except pl.exceptions.PolarsError:  # a type that the format does not have
        file = io.BytesIO()
        frame.select(pl.lit(1).alias("arrival_s")).write_parquet(file)
    return file.getvalue()


def _damage(rng: random.Random) -> list[tuple[float, int, bytes]]:
    """Draw bytes that are changed, cut out or put in, at places from 0 to 1."""
    found = []
    for _ in range(rng.choice((1, 1, 3, 20))):
        way = rng.random()
        put = bytes(rng.randrange(256) for _ in range(1 if way < 0.4 else rng.choice((1, 3))))
        cut = 1 if way < 0.4 else rng.choice((1, 4, 100))
        found.append((rng.random(), 0 if way >= 0.7 else cut, b"" if 0.4 <= way < 0.7 else put))
    return found
