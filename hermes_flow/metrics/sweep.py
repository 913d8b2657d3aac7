"""Reads a multirun folder as one table, with a row for each job."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.files import write_parquet

if TYPE_CHECKING:
    import polars as pl

Scalar = int | float | bool | str | None

_PADDED_NUMBER = re.compile(r"[+-]?0[\d_]")
_ESCAPED = re.compile(r"\\([\\()\[\]{}:=,\s])")  # what Hydra escapes in a text without quotes
_LAST = ("engine.wall_s", "engine.cpu_s")
_TEXTS = ("name", "pool", "stage", "cause", "text", "unmetered", "unpriced", "warnings")


@dataclass(frozen=True, slots=True)
class _Job:
    number: int | None
    overrides: dict[str, Scalar]
    figures: dict[str, Scalar]
    error: str | None
    ended: bool = True

    @property
    def status(self) -> str:
        if not self.ended:
            return "interrupted"
        return "completed" if self.error is None else "failed"


def collect(folder: str | Path) -> pl.DataFrame:
    """Return the jobs of a Hydra multirun folder, one row each, in order of their numbers.

    Columns: ``job`` (the number that names its folder; null, and last, for other names), one per override
    key, ``status`` ("completed", "failed", or "interrupted" where the job did not end), ``error``, and the
    summary's entries under dotted names (``ttft_s.mean``), null for a job that did not complete. Lists become
    text, joined by "; ". Raises HermesFlowError if the folder holds no jobs.
    """
    import polars as pl

    jobs = [_read_job(path) for path in _job_folders(Path(folder))]
    overrides = _keys(job.overrides for job in jobs)
    figures = [name for name in _keys(job.figures for job in jobs) if name not in overrides]
    figures.sort(key=lambda name: name in _LAST)
    columns = {"job": _column([job.number for job in jobs], pl.Int64)}
    columns |= {key: _column([job.overrides.get(key) for job in jobs], pl.String) for key in overrides}
    columns["status"] = _column([job.status for job in jobs], pl.String)
    columns["error"] = _column([job.error for job in jobs], pl.String)
    for name in figures:
        absent = pl.String if name.split(".")[-1] in _TEXTS else pl.Float64
        columns[name] = _column([job.figures.get(name) for job in jobs], absent)
    return pl.DataFrame(columns)


def write_sweep(folder: str | Path) -> pl.DataFrame:
    """Write the table of a multirun folder to ``sweep.parquet`` in it, and return it."""
    frame = collect(folder)
    write_parquet(frame, Path(folder) / "sweep.parquet")
    return frame


def _job_folders(folder: Path) -> list[Path]:
    """Return the job folders, numbers first and in their order. Raises HermesFlowError without any."""
    found = sorted(path.parent.parent for path in folder.glob("*/.hydra/overrides.yaml"))
    if not found:
        expected = "folders 0, 1, … with .hydra/overrides.yaml in each"
        raise HermesFlowError(f"{folder}: holds no jobs of a multirun; expected {expected}")
    return sorted(found, key=lambda path: (not path.name.isdecimal(), _number(path) or 0))


def _number(path: Path) -> int | None:
    return int(path.name) if path.name.isdecimal() else None


def _read_job(path: Path) -> _Job:
    number = _number(path)
    try:
        overrides = _overrides(path / ".hydra" / "overrides.yaml")
    except ValueError as error:
        return _Job(number, {}, {}, str(error))
    try:
        ended = (path / "job.json").exists() or not (path.parent / "jobs.json").exists()
        failure = path / "error.txt"
        if failure.exists():
            text = failure.read_text(encoding="utf-8", errors="replace").strip()
            return _Job(number, overrides, {}, text or "failed, giving no reason", ended)
        if not ended:
            return _Job(number, overrides, {}, "the job did not end", ended)
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
        return _Job(number, overrides, dict(_flattened(summary)), None)
    except FileNotFoundError:
        return _Job(number, overrides, {}, "no summary.json: the job did not end", ended=False)
    except (ValueError, OSError) as error:
        return _Job(number, overrides, {}, f"summary.json cannot be read: {error}")


def _overrides(path: Path) -> dict[str, Scalar]:
    """Return the overrides a job ran with, key to typed value. Raises ValueError if the file is broken."""
    from hermes_flow.config.quick_yaml import read_plain

    try:
        entries = read_plain(path.read_text(encoding="utf-8"))
    except Exception as error:  # whatever is wrong with one job's file, the other jobs count
        raise ValueError(f".hydra/overrides.yaml cannot be read: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError(".hydra/overrides.yaml cannot be read: it is not a list of key=value texts")
    pairs = (entry.partition("=") for entry in entries)
    return {key.lstrip("+~"): _typed(value) for key, _, value in pairs}


def _typed(text: str) -> Scalar:
    """Return an override's value as the number, truth value or text that Hydra takes it for."""
    word = text.strip()
    if word.lower() in ("true", "false"):
        return word.lower() == "true"
    if word.lower() in ("null", ""):
        return None
    for kind in (int, float):
        with suppress(ValueError, OverflowError):  # whole numbers beyond all floats are texts
            number = kind(word)
            if math.isfinite(number) and not _PADDED_NUMBER.match(word):
                return number
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        return word[1:-1].replace(f"\\{word[0]}", word[0])
    return word if word.startswith(("{", "[")) else _ESCAPED.sub(r"\1", word)


def _flattened(value: Any, prefix: str = "") -> Iterable[tuple[str, Scalar]]:
    """Yield the leaves of nested mappings under dotted names. Raises ValueError if the root is no mapping."""
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _flattened(entry, f"{prefix}.{name}" if prefix else str(name))
    elif not prefix:
        raise ValueError("it is not a mapping")
    elif isinstance(value, list):
        yield prefix, "; ".join(str(entry) for entry in value) or None
    else:
        yield prefix, value


def _keys(mappings: Iterable[Mapping[str, Scalar]]) -> list[str]:
    """Return the keys of all mappings in order of first appearance."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _column(values: Sequence[Scalar], absent: Any) -> pl.Series:
    """Return the values in the one type that holds them all; in the type ``absent`` if all are null."""
    import polars as pl

    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pl.Series(values, dtype=absent)
    if kinds == {bool}:
        return pl.Series(values, dtype=pl.Boolean)
    if kinds == {int} and all(abs(value) < 2**63 for value in values if isinstance(value, int)):
        return pl.Series(values, dtype=pl.Int64)
    if float in kinds and kinds <= {int, float}:
        return pl.Series([None if value is None else float(value) for value in values], dtype=pl.Float64)
    return pl.Series([None if value is None else _text(value) for value in values], dtype=pl.String)


def _text(value: Scalar) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
