"""Reads a trace file into Requests: it refuses invalid cells and sorts by arrival."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError
from hermes_flow.program.image_ids import ImageIds
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.stage_sizes import StageSizes
from hermes_flow.program.units import Ints
from hermes_flow.workload.answer_blocks import AnswerBlocks, with_answers
from hermes_flow.workload.drawn import draw_from, drawn_formats
from hermes_flow.workload.lengths.distribution import MAX_TOKENS
from hermes_flow.workload.reading.block_sizes import block_tokens
from hermes_flow.workload.reading.clock import LONG_AGO_NS, decided
from hermes_flow.workload.reading.drawn_arrivals import DrawnArrivals, drawn_arrivals
from hermes_flow.workload.reading.given_columns import with_given_columns
from hermes_flow.workload.reading.out_of_order import out_of_order_note
from hermes_flow.workload.reading.turns import NONE, chat_sessions, in_order, waits_for
from hermes_flow.workload.reading.unused_columns import unused_notes
from hermes_flow.workload.reading.window import is_window, read_window
from hermes_flow.workload.records import RecordTable, open_table, record_formats
from hermes_flow.workload.traces.cells import INT64_MAX, Blocks, Texts
from hermes_flow.workload.traces.files import JsonLinesFile, TraceFile
from hermes_flow.workload.traces.format import Column, TraceFormat, columns_of, find_format
from hermes_flow.workload.traces.stage_lists import StageLists

if TYPE_CHECKING:
    import polars as pl

_BLOCK_TOKENS = 16  # what engines hash by default; the native format's blocks
_HEAD = 100_000  # rows of a long trace that decide the unit of its times


def read_trace(workload: TraceWorkload) -> Requests:
    """Return the requests of the file, sorted by arrival; requests that arrive at once keep their order.

    ``limit`` takes the first so many rows of the file, or of its window, before sorting. Turns that wait for the
    answers before them follow the first turn of their session. Raises TraceError naming file and line, ConfigError on
    a bad figure.
    """
    drawn = draw_from(workload)
    if drawn is not None:
        return drawn
    file = open_table(workload.path, workload)
    workload = _as_sent(file, workload)
    rows = _rows(file, _layout(workload, file), workload)
    fields = _numbers(rows)
    return _requests(rows, fields, workload)


@dataclass(slots=True)
class _Rows:
    """The chosen rows of a file: their cells, the columns that read them, and the notes for the user."""

    file: TraceFile
    layout: type[TraceFormat]
    columns: list[Column]
    table: pl.DataFrame
    numbers: Ints | None = None  # of the rows in the file, where they are not the first ones
    origin_ns: int | None = None  # what arrivals count from, where a window says so
    notes: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def header_line(self) -> int | None:
        """The line of the names."""
        return self.file.header_line

    def place(self, row: int) -> tuple[int | None, str]:
        """Return where a chosen row stands in the file."""
        return self.file.place(row if self.numbers is None else int(self.numbers[row]))

    def column(self, fills: str) -> Column | None:
        """Return the column that fills a field, or None."""
        return next((column for column in self.columns if column.fills == fills), None)


def _as_sent(file: TraceFile, workload: TraceWorkload) -> TraceWorkload:
    """Return the workload with the arrivals of a benchmark's log, where the user gives none."""
    if not isinstance(file, RecordTable) or file.load is None or workload.arrivals is not None:
        return workload
    arrivals = file.load.arrivals
    process = arrivals if isinstance(arrivals, str) else dict(arrivals)
    return replace(workload, arrivals=process, rate_per_s=file.load.rate_per_s)


def _layout(workload: TraceWorkload, file: TraceFile) -> type[TraceFormat]:
    if isinstance(file, RecordTable):
        return find_format("native", file, arrivals_drawn=True)
    drawn, others = workload.arrivals is not None, (*record_formats.names, *drawn_formats.names)
    if not workload.columns:
        return find_format(workload.format, file, arrivals_drawn=drawn, others=others)
    base = find_format("native" if workload.format == "auto" else workload.format, file, others=others)
    return with_given_columns(base, workload.columns, workload.time_unit, file)


def _names(file: TraceFile, limit: int | None) -> list[str]:
    """Return the columns of a file; of JSON lines also those that carry something and that only later lines have."""
    if not isinstance(file, JsonLinesFile):
        return file.names
    return [*file.names, *file.later_names(lambda name: bool(unused_notes([name], ())), limit)]


def _rows(file: TraceFile, layout: type[TraceFormat], workload: TraceWorkload) -> _Rows:
    """Read the cells of the columns that the format knows, of the rows that the workload chooses."""
    drawn = workload.arrivals is not None
    columns = columns_of(layout, file, arrivals_drawn=drawn)
    used = {column.name for column in columns} | set(getattr(layout, "known", ()))
    notes = (
        [*file.run.notes]
        if isinstance(file, RecordTable)
        else unused_notes(_names(file, workload.limit), used)
    )
    arrival = next((column for column in columns if column.fills == "arrival_ns"), None)
    if drawn and arrival is not None:
        columns.remove(arrival)
        arrival = None
    names = [column.name for column in columns]
    if arrival is None:
        if is_window(workload) or workload.time_unit is not None:
            key = "workload.time_unit" if workload.time_unit is not None else "workload.start"
            raise ConfigError(
                key, "the arrivals of workload.arrivals are not those of the file; leave it out"
            )
        return _whole(file, layout, columns, file.table(names, workload.limit), notes)
    if is_window(workload):
        head = file.collected(file.lazy([arrival.name]).head(_HEAD))[arrival.name]
        timed, note = decided(arrival, head, workload.time_unit, file)
        columns[columns.index(arrival)] = timed
        window = read_window(file, names, timed, workload, layout.from_first)
        notes += [note] if note else []
        return _Rows(file, layout, columns, window.table, window.rows, window.origin_ns, notes)
    table = file.table(names, workload.limit)
    timed, note = decided(arrival, table[arrival.name], workload.time_unit, file)
    columns[columns.index(arrival)] = timed
    return _whole(file, layout, columns, table, [*notes, note] if note else notes)


def _whole(
    file: TraceFile, layout: type[TraceFormat], columns: list[Column], table: pl.DataFrame, notes: list[str]
) -> _Rows:
    if table.height == 0:
        raise TraceError(str(file.path), None, "has no requests")
    return _Rows(file, layout, columns, table, notes=notes)


def _numbers(rows: _Rows) -> dict[str, Ints]:
    """Read each column; raises TraceError at the first row (and in it the first column) that is not valid."""
    read = [column.read(rows.table[column.name]) for column in rows.columns]
    for place, column in enumerate(rows.columns):
        if column.fills == "arrival_ns" and _some_wait(rows):
            cells = rows.table[column.name]
            read[place] = read[place].set(cells.is_null() & read[place].is_null(), NONE)
    bad = [values.is_null().arg_max() if values.null_count() else None for values in read]
    first = min((row for row in bad if row is not None), default=None)
    if first is not None:
        column = rows.columns[bad.index(first)]
        line, words = rows.place(first)
        raise TraceError(str(rows.path), line, words + column.problem(rows.table[column.name], first))
    return {
        column.fills: values.to_numpy(writable=True)
        for column, values in zip(rows.columns, read, strict=True)
        if column.fills and not (column.blank is not None and (values == column.blank).all())
    }


def _some_wait(rows: _Rows) -> bool:
    """Whether rows of the file may follow others of their session in place of an arrival of their own."""
    return rows.column("session") is not None and rows.column("delay_ns") is not None


def _requests(rows: _Rows, fields: dict[str, Ints], workload: TraceWorkload) -> Requests:
    count = rows.table.height
    if "chat" in fields:
        parents = fields.pop("parent_chat", np.full(count, NONE))
        fields["session"] = chat_sessions(fields.pop("chat"), parents)
    image_ids = _image_ids(rows, fields)
    _add_images(rows, fields, workload)
    prefixes = _prefixes(rows, fields, workload)
    limits = _limits(fields, rows)
    if limits is not None:
        fields["output_limit"] = limits
    stages = _stage_sizes(rows, fields)
    delay = fields.pop("delay_ns", np.full(count, NONE))
    session = fields.get("session", np.full(count, NONE))
    arrival = _from_origin(rows, fields)
    drawn: DrawnArrivals | None = None
    if arrival is None:
        before = waits_for(np.zeros(count, np.int64), delay, session, True, rows)
        assert workload.arrivals is not None
        drawn = drawn_arrivals(workload.arrivals, workload.rate_per_s, workload, before)
        arrival, count = drawn.arrival_ns, len(drawn.arrival_ns)
    else:
        before = waits_for(arrival, delay, session, False, rows)
        unsorted = out_of_order_note(rows.path, arrival, rows.place)
        rows.notes += [unsorted] if unsorted else []
        arrival = _scaled(arrival, workload.rate_scale)
    turns = in_order(arrival, delay[:count], before[:count])
    kept = {name: values[turns.order] for name, values in fields.items()}
    names = {
        column.fills: tuple(column.cells.names(rows.table[column.name]))
        for column in rows.columns
        if isinstance(column.cells, Texts) and column.fills in fields
    }
    moved = prefixes is not None and not np.array_equal(turns.order, np.arange(rows.table.height))
    return Requests(
        arrival_ns=turns.begins_ns,
        input_tokens=kept["input_tokens"],
        output_tokens=kept["output_tokens"],
        session=kept.get("session"),
        priority=kept.get("priority"),
        model=kept.get("model"),
        models=names.get("model", ()),
        pipeline=kept.get("pipeline"),
        pipelines=names.get("pipeline", ()),
        traffic=kept.get("traffic"),
        classes=names.get("traffic", ()),
        tenant=kept.get("tenant"),
        tenants=names.get("tenant", ()),
        adapter=kept.get("adapter"),
        adapters=names.get("adapter", ()),
        site=kept.get("site"),
        sites=names.get("site", ()),
        images=kept.get("images"),
        image_ids=None if image_ids is None else image_ids.reordered(turns.order),
        prefixes=prefixes.reordered(turns.order) if prefixes is not None and moved else prefixes,
        output_limit=kept.get("output_limit"),
        ignore_eos=kept.get("ignore_eos"),
        stages=None if stages is None else stages.reordered(turns.order),
        concurrency=None if drawn is None else drawn.concurrency,
        think_ns=turns.think_ns if drawn is None or drawn.think_ns is None else drawn.think_ns,
        previous=turns.previous,
        notes=tuple(rows.notes),
    )


def _from_origin(rows: _Rows, fields: dict[str, Ints]) -> Ints | None:
    """Return the arrivals counted from the window's beginning, the earliest date, or 0; None without any."""
    arrival = fields.pop("arrival_ns", None)
    if arrival is None:
        return None
    known = arrival[arrival != NONE] if _some_wait(rows) else arrival
    if not len(known):
        return arrival
    origin = rows.origin_ns
    if origin is None:
        origin = int(known.min()) if rows.layout.from_first or _dated(rows, int(known.min())) else 0
    return (
        np.where(arrival == NONE, NONE, arrival - origin) if len(known) < len(arrival) else arrival - origin
    )


def _dated(rows: _Rows, earliest_ns: int) -> bool:
    from hermes_flow.workload.traces.cells import Date

    column = rows.column("arrival_ns")
    return earliest_ns > LONG_AGO_NS or (column is not None and isinstance(column.cells, Date))


def _image_ids(rows: _Rows, fields: dict[str, Ints]) -> ImageIds | None:
    """Return the names of images, None where the rows have none; they also say how many there are.

    Raises TraceError at the first row whose number of images is another.
    """
    counts, column = fields.pop("image_ids", None), rows.column("image_ids")
    if counts is None or column is None:
        return None
    images = fields.setdefault("images", counts)
    wrong = np.flatnonzero(images != counts)
    if len(wrong):
        line, row = rows.place(int(wrong[0]))
        numbers = f"image_hashes has {counts[wrong[0]]}, and images is {images[wrong[0]]}; expected as many"
        raise TraceError(str(rows.path), line, row + numbers)
    ids = Blocks().ids(rows.table[column.name]).to_numpy()
    return ImageIds(ids, np.concatenate(([0], np.cumsum(counts))))


def _add_images(rows: _Rows, fields: dict[str, Ints], workload: TraceWorkload) -> None:
    """Add the tokens of images to the prompts, where the workload says how many."""
    images = fields.get("images")
    if workload.tokens_per_image is not None:
        if rows.column("images") is None and rows.column("image_ids") is None:
            raise ConfigError("workload.tokens_per_image", f"{rows.path} has no column of images")
        if images is not None:
            fields["input_tokens"] = fields["input_tokens"] + images * workload.tokens_per_image
            if fields["input_tokens"].max() > MAX_TOKENS:
                problem = f"{workload.tokens_per_image} gives a prompt of more than {MAX_TOKENS:.0e} tokens"
                raise ConfigError("workload.tokens_per_image", problem)


def _prefixes(rows: _Rows, fields: dict[str, Ints], workload: TraceWorkload) -> Prefixes | None:
    counts = fields.pop("prefixes", None)
    prefixes = None
    column = rows.column("prefixes")
    if counts is not None and column is not None:
        documented = rows.layout.prefix_block_tokens
        if documented is None and column.name != "block_hash_ids":
            documented = _BLOCK_TOKENS
        certain = rows.notes if column.name == "prefix_hashes" else None
        size = block_tokens(
            *(counts, fields["input_tokens"], workload.prefix_block_tokens, documented, column.name, rows),
            certain,
        )
        ids = Blocks().ids(rows.table[column.name]).to_numpy()
        prefixes = Prefixes(ids, np.concatenate(([0], np.cumsum(counts))), size)
    answers = fields.pop("answers", None)
    if answers is not None and answers.any():
        own = rows.column("answers")
        assert own is not None
        given = AnswerBlocks(answers, Blocks().ids(rows.table[own.name]).to_numpy())
        prefixes = with_answers(prefixes, given, fields["input_tokens"], fields["output_tokens"], rows)
    return prefixes


def _stage_sizes(rows: _Rows, fields: dict[str, Ints]) -> StageSizes | None:
    """Return the sizes of single stages that the rows list, None where they list none."""
    column = rows.column("stages")
    if fields.pop("stages", None) is None or column is None:
        return None
    assert isinstance(column.cells, StageLists)
    numbers = np.arange(rows.table.height, dtype=np.int64) if rows.numbers is None else rows.numbers
    return column.cells.sizes(rows.table[column.name], numbers, rows.file)


def _limits(fields: dict[str, Ints], rows: _Rows) -> Ints | None:
    """Return the tokens that each answer may have; those that it has where the file names no limit.

    Raises TraceError where an answer is longer than its limit, or shorter although it ignores its end.
    """
    limits, output = fields.get("output_limit"), fields["output_tokens"]
    if limits is None:
        return None
    limits = np.where(limits > 0, limits, output)
    over = np.flatnonzero(output > limits)
    if len(over):
        line, row = rows.place(int(over[0]))
        problem = f"output_limit is {limits[over[0]]}, below the output_tokens, {output[over[0]]}"
        raise TraceError(str(rows.path), line, row + problem)
    goes_on = fields.get("ignore_eos", np.zeros_like(output)) > 0
    short = np.flatnonzero(goes_on & (output < limits))
    if len(short):
        line, row = rows.place(int(short[0]))
        numbers = f"output_tokens is {output[short[0]]}, below output_limit, {limits[short[0]]}"
        raise TraceError(
            str(rows.path), line, f"{row}ignore_eos is true and {numbers}; expected equal numbers"
        )
    return limits


def _scaled(arrival_ns: Ints, rate_scale: float) -> Ints:
    """Divide the times by ``rate_scale``, to the nearest ns."""
    if rate_scale == 1.0:
        return arrival_ns
    scaled = np.rint(arrival_ns / rate_scale)
    if scaled.max() >= INT64_MAX:
        raise ConfigError(
            "workload.rate_scale", f"{rate_scale:g} spreads the arrivals over more than 292 years"
        )
    return scaled.astype(np.int64)
