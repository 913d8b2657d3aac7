"""Reads a trace file into Requests: it refuses invalid cells and sorts by arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.workload.answer_blocks import AnswerBlocks, with_answers
from hermes_flow.workload.number_checks import require_count
from hermes_flow.workload.traces.cells import INT64_MAX, Blocks, Texts
from hermes_flow.workload.traces.files import TraceFile, open_trace
from hermes_flow.workload.traces.format import Column, columns_of, find_format

if TYPE_CHECKING:
    import polars as pl

_BLOCK_TOKENS = 16  # what engines hash by default, where neither the format nor the config says


def read_trace(workload: TraceWorkload) -> Requests:
    """Return the requests of the file, sorted by arrival; requests that arrive at once keep their order.

    ``limit`` takes the first so many rows of the file, before sorting. Raises TraceError naming file and
    line, ConfigError on a bad figure.
    """
    if workload.limit is not None:
        require_count(workload.limit, "workload.limit", "a number of requests")
    if workload.prefix_block_tokens is not None:
        require_count(workload.prefix_block_tokens, "workload.prefix_block_tokens", "a number of tokens")
    file = open_trace(workload.path)
    layout = find_format(workload.format, file)
    columns = columns_of(layout, file)
    table = file.table([column.name for column in columns], workload.limit)
    if table.height == 0:
        raise TraceError(str(file.path), None, "has no requests")
    fields = _fields(columns, table, file)
    arrival_ns = fields.pop("arrival_ns")
    if layout.from_first:
        arrival_ns = arrival_ns - arrival_ns.min()
    lengths = fields.pop("prefixes", None)
    prefixes = None
    if lengths is not None:
        column = next(column for column in columns if column.fills == "prefixes")
        ids = Blocks().ids(table[column.name]).to_numpy()
        block_tokens = workload.prefix_block_tokens or layout.prefix_block_tokens or _BLOCK_TOKENS
        prefixes = Prefixes(ids, np.concatenate(([0], np.cumsum(lengths))), block_tokens)
    answers = fields.pop("answers", None)
    if answers is not None and answers.any():
        column = next(column for column in columns if column.fills == "answers")
        given = AnswerBlocks(answers, Blocks().ids(table[column.name]).to_numpy())
        prefixes = with_answers(prefixes, given, fields["input_tokens"], fields["output_tokens"], file)
    limits = _limits(fields, file)
    if limits is not None:
        fields["output_limit"] = limits
    names = {
        column.fills: tuple(column.cells.names(table[column.name]))
        for column in columns
        if isinstance(column.cells, Texts) and column.fills in fields
    }
    if np.any(np.diff(arrival_ns) < 0):
        order = np.argsort(arrival_ns, kind="stable")
        arrival_ns = arrival_ns[order]
        fields = {name: values[order] for name, values in fields.items()}
        prefixes = None if prefixes is None else prefixes.reordered(order)
    return Requests(
        arrival_ns=_scaled(arrival_ns, workload.rate_scale),
        input_tokens=fields["input_tokens"],
        output_tokens=fields["output_tokens"],
        session=fields.get("session"),
        priority=fields.get("priority"),
        model=fields.get("model"),
        models=names.get("model", ()),
        pipeline=fields.get("pipeline"),
        pipelines=names.get("pipeline", ()),
        prefixes=prefixes,
        output_limit=fields.get("output_limit"),
        ignore_eos=fields.get("ignore_eos"),
    )


def _limits(fields: dict[str, Ints], file: TraceFile) -> Ints | None:
    """Return the tokens that each answer may have; those that it has where the file names no limit.

    Raises TraceError where an answer is longer than its limit, or shorter although it ignores its end.
    """
    limits, output = fields.get("output_limit"), fields["output_tokens"]
    if limits is None:
        return None
    limits = np.where(limits > 0, limits, output)
    over = np.flatnonzero(output > limits)
    if len(over):
        line, row = file.place(int(over[0]))
        problem = f"output_limit is {limits[over[0]]}, below the output_tokens, {output[over[0]]}"
        raise TraceError(str(file.path), line, row + problem)
    goes_on = fields.get("ignore_eos", np.zeros_like(output)) > 0
    short = np.flatnonzero(goes_on & (output < limits))
    if len(short):
        line, row = file.place(int(short[0]))
        numbers = f"output_tokens is {output[short[0]]}, below output_limit, {limits[short[0]]}"
        raise TraceError(
            str(file.path), line, f"{row}ignore_eos is true and {numbers}; expected equal numbers"
        )
    return limits


def _fields(columns: list[Column], table: pl.DataFrame, file: TraceFile) -> dict[str, Ints]:
    """Read each column; raises TraceError at the first row (and in it the first column) that is not valid."""
    read = [column.read(table[column.name]) for column in columns]
    bad = [values.is_null().arg_max() if values.null_count() else None for values in read]
    first = min((row for row in bad if row is not None), default=None)
    if first is not None:
        column = columns[bad.index(first)]
        line, row = file.place(first)
        raise TraceError(str(file.path), line, row + column.problem(table[column.name], first))
    return {
        column.fills: values.to_numpy(writable=True)
        for column, values in zip(columns, read, strict=True)
        if column.fills and not (column.blank is not None and (values == column.blank).all())
    }


def _scaled(arrival_ns: Ints, rate_scale: float) -> Ints:
    """Divide the times by ``rate_scale``, to the nearest ns."""
    if rate_scale == 1.0:
        return arrival_ns
    scaled = np.rint(arrival_ns / rate_scale)
    if scaled[-1] >= INT64_MAX:
        raise ConfigError(
            "workload.rate_scale", f"{rate_scale:g} spreads the arrivals over more than 292 years"
        )
    return scaled.astype(np.int64)
