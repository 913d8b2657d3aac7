"""Reads tables of measured step times in two forms, and names the line of every row it cannot use.

- shapes: ``prompt``, ``batch``, ``output`` and the time of the prefill and of a decode step;
- steps: a log of single steps, ``prefill_tokens``, ``prefill_context``, ``decodes``, ``decode_context`` and the time;
  with ``prefill_pairs`` the query-key pairs of the prompts, or with ``chunks`` each prompt's TOKENS@CONTEXT.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.cost.fitted.joined import JoinedTables
from hermes_flow.cost.fitted.steps import Floats, Mask, Steps
from hermes_flow.cost.fitted.table_rows import Rows, as_shapes, as_steps
from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.program.units import US_PER_S
from hermes_flow.workload.records import RecordTable, open_table
from hermes_flow.workload.traces.files import TraceFile

if TYPE_CHECKING:
    import polars as pl

UNITS_US = {"s": 1e6, "ms": 1e3, "us": 1.0, "ns": 1e-3}

# Under which names a figure is known; the first is ours.
_SHAPE = {
    "prompt": ("prompt", "prompt_size", "prompt_tokens", "input_tokens", "isl"),
    "batch": ("batch", "batch_size"),
    "output": ("output", "token_size", "output_tokens", "osl"),
}
_STEP = {
    "decodes": ("decodes",),
    "decode_context": ("decode_context",),
    "prefill_tokens": ("prefill_tokens",),
}
_OPTIONAL = {"prefill_context": ("prefill_context",), "prefills": ("prefills",)}
_PAIRS, _CHUNKS, _ADDED = "prefill_pairs", "chunks", "add_us"
_DEVICES = ("tensor_parallel", "tp", "tp_size")
_PREFILL = {**{f"prefill_{unit}": us for unit, us in UNITS_US.items()}, "prompt_time": 1e3}
_DECODE = {**{f"decode_{unit}": us for unit, us in UNITS_US.items()}, "token_time": 1e3}
_TIME = {f"{name}_{unit}": us for name in ("time", "duration") for unit, us in UNITS_US.items()}
_SPAN = ("start_s", "end_s")
_STARTS = {f"start_{unit}": us for unit, us in UNITS_US.items()}
# What tells configurations apart; a fit is of one.
_APART = ("model", "hardware", "gpu", "engine", "backend", "precision")
_SHOWN = 8  # of a list
_LINES = 5  # of one kind of fault


@dataclass(frozen=True, slots=True)
class Measurements:
    """The steps of a table by tensor-parallel devices (None without such a column), and the rows left out.

    ``rows`` were chosen of the table, ``left_out`` of them cannot be used; ``faults`` names the first of these.
    ``of`` has, by column, the model, the machine and what else the rows say that they are all of.
    """

    path: str
    form: str
    by_tensor_parallel: Mapping[int | None, Steps]
    rows: int
    left_out: int
    faults: tuple[str, ...]
    of: Mapping[str, str] = field(default_factory=dict)

    def steps(self, tensor_parallel: int, key: str) -> Steps:
        """Return the steps measured with so many; raises ConfigError at ``key`` where there are none."""
        if None in self.by_tensor_parallel:
            return self.by_tensor_parallel[None]
        if tensor_parallel not in self.by_tensor_parallel:
            have = ", ".join(str(count) for count in sorted(filter(None, self.by_tensor_parallel)))
            raise ConfigError(key, f"{tensor_parallel}; {self.path} has rows of {have}")
        return self.by_tensor_parallel[tensor_parallel]

    @property
    def summary(self) -> str:
        """How many rows were used."""
        text = f"{self.path}: {self.rows - self.left_out:,} of {self.rows:,} rows"
        return f"{text}, the first left out {self.faults[0]}" if self.faults else text


def form_of(path: str, key: str) -> str:
    """Return ``shapes``, ``steps`` or ``requests`` (a serving log), by the columns; raises ConfigError."""
    file = _open(path, key)
    names = set(file.names)
    if isinstance(file, RecordTable) and names & {"ttft_ns", "e2e_ns"}:
        return "requests"
    if any(name.startswith("arrival_") for name in names) and "input_tokens" in names:
        return "requests"
    if any(name in names for name in (*_PREFILL, *_DECODE)):
        return "shapes"
    if "decodes" in names or "prefill_tokens" in names:
        return "steps"
    raise ConfigError(
        key,
        f"{path} is neither a table of shapes (prompt, batch, output, prefill_ms, decode_ms) nor of steps "
        f"(prefill_tokens, prefill_context, decodes, decode_context, time_ms) nor a log of requests (arrival_s, "
        f"input_tokens, output_tokens, ttft_s, e2e_s); it has: {', '.join(file.names)}",
    )


def read_measurements(path: str | Sequence[str], where: Mapping[str, Any], key: str) -> Measurements:
    """Return the measurements of tables of shapes or steps, from the rows with the values of ``where``.

    ``where`` maps columns to values, ``key`` is the config key above ``path`` and ``where``. Raises ConfigError where
    columns are missing, no row or several configurations are chosen, or no row can be used.
    """
    paths = [path] if isinstance(path, str) else list(path)
    forms = {form_of(each, f"{key}.path") for each in paths}
    if len(forms) > 1:
        raise ConfigError(f"{key}.path", f"the files are {' and '.join(sorted(forms))}; expected one kind")
    (form,) = forms
    path = ", ".join(paths)
    if form == "requests":
        raise ConfigError(
            f"{key}.path", f"{path} is a log of requests; expected a table of shapes or of steps"
        )
    opened = [_open(each, f"{key}.path") for each in paths]
    file = opened[0] if len(opened) == 1 else JoinedTables(opened)
    frame = _table(file, f"{key}.path")
    chosen = _chosen(frame, where, path, key)
    of = _only(frame, chosen, where, path, key)
    reader = _Reader(file, frame, chosen, f"{key}.path")
    rows = reader.shapes() if form == "shapes" else reader.steps()
    parallel = reader.tensor_parallel(rows)
    found: dict[int | None, Steps] = {}
    for count in sorted(set(parallel.tolist())):
        own = rows.where(parallel == count)
        steps = as_shapes(own) if form == "shapes" else as_steps(own)
        rows.faults.update(own.faults)
        if len(steps):
            found[None if count == 0 else int(count)] = steps
    faults = _told(file, rows.faults)
    if not found:
        listed = "\n".join(f"  - {fault}" for fault in faults)
        raise ConfigError(f"{key}.path", f"none of {len(chosen):,} rows of {path} can be used:\n{listed}")
    return Measurements(path, form, found, len(chosen), len(rows.faults), faults, of)


def read_log(path: str, where: Mapping[str, Any], key: str) -> tuple[Rows, Floats]:
    """Return the rows of a log of steps that have the values of ``where``, and when each step began, in µs.

    Raises ConfigError at ``key`` for a table that is no log of steps, does not say when they began, or is of several
    clients.
    """
    if form_of(path, f"{key}.path") != "steps":
        raise ConfigError(f"{key}.path", f"{path} has no single steps; expected a log of steps")
    file = _open(path, f"{key}.path")
    frame = _table(file, f"{key}.path")
    reader = _Reader(file, frame, _chosen(frame, where, path, key), f"{key}.path")
    for name in ("client", "engine", "run"):
        several = frame[name].gather(reader.rows.astype(np.int64)).n_unique() if name in frame.columns else 1
        if several > 1:
            raise ConfigError(
                f"{key}.where",
                f"{path} has steps of {several} values of {name}; choose one, as drift_s needs",
            )
    starts = reader.starts()
    rows = reader.steps()
    place = {int(row): index for index, row in enumerate(reader.rows)}
    return rows, starts[[place[int(row)] for row in rows.row]]


class _Reader:
    """Columns of the chosen rows as numbers, noting the rows where a cell is none."""

    def __init__(self, file: TraceFile, frame: pl.DataFrame, chosen: Floats, key: str) -> None:
        self.path = str(file.path)
        self.frame = frame
        self.rows = chosen
        self.key = key
        self.faults: dict[int, str] = {}

    def shapes(self) -> Rows:
        """Return rows of shapes."""
        columns = {name: self._named(names, 1.0) for name, names in _SHAPE.items() if name != "output"}
        output = self._find(_SHAPE["output"])
        columns["output"] = np.ones(len(self.rows)) if output is None else self._numbers(output, 1.0)
        for name, known in (("prefill_us", _PREFILL), ("decode_us", _DECODE)):
            found = self._find(tuple(known))
            missing = np.full(len(self.rows), np.nan)
            columns[name] = (
                missing if found is None else self._numbers(found, 0.0, positive=True) * known[found]
            )
        return self._sound(columns)

    def steps(self) -> Rows:
        """Return rows of steps."""
        columns = {name: self._named(names, 0.0) for name, names in _STEP.items()}
        for name, names in _OPTIONAL.items():
            found = self._find(names)
            if found is not None:
                columns[name] = self._numbers(found, 0.0)
        time = self._find(tuple(_TIME))
        if time is not None:
            columns["time_us"] = self._numbers(time, 0.0, positive=True) * _TIME[time]
            if time.startswith("duration") and _ADDED in self.frame.columns:
                columns["time_us"] = columns["time_us"] + self._numbers(_ADDED, 0.0)
        elif set(_SPAN) <= set(self.frame.columns):
            start, end = (self._numbers(name, 0.0) for name in _SPAN)
            columns["time_us"] = (end - start) * US_PER_S
        else:
            raise self._lacks("the time of a step", ("time_ms", "time_us"))
        columns.setdefault("prefill_context", np.zeros(len(self.rows)))
        columns.setdefault("prefills", np.where(columns["prefill_tokens"] > 0, 1.0, 0.0))
        if _CHUNKS in self.frame.columns:
            self._read_chunks(columns)
        elif _PAIRS in self.frame.columns:
            # A token sees itself: the simulator's pairs have half of a token's less.
            pairs = self._numbers(_PAIRS, 0.0) - 0.5 * columns["prefill_tokens"]
            columns[_PAIRS] = np.maximum(pairs, 0.0)
        return self._sound(columns)

    def starts(self) -> Floats:
        """Return when each step began, in µs."""
        found = self._find(tuple(_STARTS))
        if found is None:
            raise self._lacks("when a step began", ("start_us", "start_s"))
        return self._numbers(found, 0.0) * _STARTS[found]

    def _read_chunks(self, columns: dict[str, Floats]) -> None:
        """Take the prompts of each step from its chunks, written as TOKENS@CONTEXT with blanks between them.

        A row whose chunks do not add up to its prefill tokens is a fault.
        """
        cells = self.frame[_CHUNKS].gather(self.rows.astype(np.int64)).to_list()
        sizes = np.zeros((4, len(cells)))
        for index, cell in enumerate(cells):
            words = ("" if cell is None else str(cell)).split()
            parts = [word.split("@") for word in words]
            if not all(len(part) == 2 and part[0].isdigit() and part[1].isdigit() for part in parts):
                fault = (
                    f"{_CHUNKS} is {cell!r}; expected TOKENS@CONTEXT for each prompt, such as 342@0 16@512"
                )
                self.faults.setdefault(int(self.rows[index]), fault)
                continue
            chunks = [(int(tokens), int(context)) for tokens, context in parts]
            sizes[0, index] = len(chunks)
            sizes[1, index] = sum(tokens for tokens, _ in chunks)
            sizes[2, index] = sum(context for _, context in chunks)
            sizes[3, index] = math.fsum(tokens * (context + 0.5 * tokens) for tokens, context in chunks)
            if sizes[1, index] != columns["prefill_tokens"][index]:
                told = (
                    f"{sizes[1, index]:,.0f} tokens, prefill_tokens {columns['prefill_tokens'][index]:,.0f}"
                )
                self.faults.setdefault(int(self.rows[index]), f"{_CHUNKS} have {told}; expected as many")
        columns["prefills"], _, columns["prefill_context"], columns[_PAIRS] = sizes

    def tensor_parallel(self, rows: Rows) -> Floats:
        """Return the tensor-parallel devices of each sound row; 0 where the table does not say."""
        found = self._find(_DEVICES)
        if found is None:
            return np.zeros(len(rows))
        position = {int(row): index for index, row in enumerate(self.rows)}
        counts = self._numbers(found, 1.0)
        return counts[[position[int(row)] for row in rows.row]]

    def _sound(self, columns: Mapping[str, Floats]) -> Rows:
        sound = np.array([int(row) not in self.faults for row in self.rows], dtype=np.bool_)
        kept = {name: values[sound] for name, values in columns.items()}
        return Rows(kept, self.rows[sound].astype(np.int64), self.faults)

    def _find(self, names: tuple[str, ...]) -> str | None:
        """Return the column of these names; raises ConfigError where there are several, in two units or spellings."""
        found = [name for name in self.frame.columns if name in names]
        if len(found) > 1:
            raise ConfigError(self.key, f"{self.path} has {' and '.join(found)}; expected one of them")
        return found[0] if found else None

    def _named(self, names: tuple[str, ...], least: float) -> Floats:
        found = self._find(names)
        if found is None:
            raise self._lacks(names[0], names)
        return self._numbers(found, least)

    def _lacks(self, what: str, names: tuple[str, ...]) -> ConfigError:
        columns = f"a column {' or '.join(names[:3])}"
        missing = columns if names == (what,) else f"{what} ({columns})"
        return ConfigError(self.key, f"{self.path} lacks {missing}; it has: {', '.join(self.frame.columns)}")

    def _numbers(self, name: str, least: float, *, positive: bool = False) -> Floats:
        """Return the column's chosen cells; those below ``least`` and those that are no number are faults."""
        import polars as pl

        cells = self.frame[name].gather(self.rows.astype(np.int64))
        if cells.dtype == pl.String:
            cells = cells.str.strip_chars()
        values: Floats = cells.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float64)
        wrong: Mask = ~np.isfinite(values) | (values <= 0.0 if positive else values < least)
        expected = "a positive number" if positive else f"a number ≥ {least:g}"
        for index in np.flatnonzero(wrong).tolist():
            cell = cells[index]
            found = "empty" if cell is None or cell == "" else repr(cell)
            self.faults.setdefault(int(self.rows[index]), f"{name} is {found}; expected {expected}")
        return values


def _open(path: str, key: str) -> TraceFile:
    try:
        return open_table(path)
    except TraceError as error:
        raise ConfigError(key, str(error)) from None


def _table(file: TraceFile, key: str) -> pl.DataFrame:
    try:
        return file.table(list(file.names), None)
    except TraceError as error:
        raise ConfigError(key, str(error)) from None


def _told(file: TraceFile, faults: Mapping[int, str]) -> tuple[str, ...]:
    """Return the first faults with the lines that have them; equal ones together."""
    rows: dict[str, list[int]] = {}
    for row, what in sorted(faults.items()):
        rows.setdefault(what, []).append(row)
    told = []
    for what, same in itertools.islice(rows.items(), _SHOWN):
        lines, words = zip(*(file.place(row) for row in same[:_LINES]), strict=True)
        where = [
            word.rstrip(": ") if line is None else str(line) for line, word in zip(lines, words, strict=True)
        ]
        where += [f"and {len(same) - _LINES:,} more"] if len(same) > _LINES else []
        told.append(f"{file.path}{', ' if lines[0] is None else ':'}{', '.join(where)}: {what}")
    others = sum(map(len, itertools.islice(rows.values(), _SHOWN, None)))
    return (*told, f"and {others:,} rows with other faults") if others else tuple(told)


def _chosen(frame: pl.DataFrame, where: Mapping[str, Any], path: str, key: str) -> Floats:
    """Return the indices of the rows that have all values of ``where``."""
    import polars as pl

    mask = np.ones(frame.height, dtype=np.bool_)
    for name, value in where.items():
        if name not in frame.columns:
            raise ConfigError(
                f"{key}.where.{name}", f"{path} has no such column (it has: {', '.join(frame.columns)})"
            )
        own = frame[name].cast(pl.String).str.strip_chars()
        found = (own == str(value)).fill_null(value=False).to_numpy()
        if not found.any():
            have = ", ".join(sorted({str(entry) for entry in own.unique().to_list()})[:_SHOWN])
            raise ConfigError(f"{key}.where.{name}", f"no row of {path} has {value!s} (there are: {have})")
        mask &= found
    rows = np.flatnonzero(mask).astype(np.float64)
    if not len(rows):
        asked = ", ".join(f"{name}={value}" for name, value in where.items())
        raise ConfigError(f"{key}.where", f"no row of {path} has {asked}" if where else f"{path} has no rows")
    return rows


def _only(
    frame: pl.DataFrame, chosen: Floats, where: Mapping[str, Any], path: str, key: str
) -> dict[str, str]:
    """Return the model, the machine and so on of all rows; refuse several, as no single line fits them."""
    import polars as pl

    several, only = [], {}
    for name in _APART:
        if name in frame.columns:
            own = frame[name].gather(chosen.astype(np.int64)).cast(pl.String).unique().drop_nulls()
            if len(own) > 1 and name not in where:
                several.append((name, sorted(own.to_list())))
            elif len(own):
                only[name] = str(own[0]).strip()
    if several:
        what = "; ".join(f"{name} {', '.join(values[:_SHOWN])}" for name, values in several)
        name, values = several[0]
        raise ConfigError(
            f"{key}.where",
            f"{path} has rows of several: {what}; choose, as in +{key}.where.{name}={values[0]}",
        )
    return only
