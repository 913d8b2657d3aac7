"""Reads tables from CSV, JSON lines or Parquet files, and locates their rows for error messages."""

from __future__ import annotations

import codecs
import contextlib
import csv
import difflib
import glob
import gzip
import io
import itertools
import json
import re
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn, Protocol

from hermes_flow.config.documents import DocumentError, read_json
from hermes_flow.config.unreadable import unreadable
from hermes_flow.errors import TraceError, reason
from hermes_flow.workload.traces.typed_files import TypedFile, typed_names

if TYPE_CHECKING:
    import polars as pl

_KEY = re.compile(r'"([\w .-]+)"\s*:')  # of a JSON object, or of one within it
KINDS = ".csv, .tsv or .jsonl, also with .gz, .parquet or .arrow"
_SEPARATORS = (";", "\t", "|")  # of a header that has no comma
_PACKED = {
    ".zst": "zstd -d",
    ".xz": "xz -d",
    ".bz2": "bzip2 -d",
    ".zip": "unzip",
    ".7z": "7z x",
    ".tgz": "tar xf",
}


class Placed(Protocol):
    """Rows of a file, as error messages name them."""

    @property
    def path(self) -> Path:
        """The path of the file."""

    @property
    def header_line(self) -> int | None:
        """The line its column names were taken from, if they stand on one."""

    def place(self, row: int) -> tuple[int | None, str]:
        """Return the line of the row (counted from 0), or None and words that say which row."""


def _cut(path: str) -> str:
    return repr(path if len(path) <= 80 else path[:79] + "…")[1:-1]


class TraceFile(Placed, Protocol):
    """A table on disk."""

    @property
    def names(self) -> list[str]:
        """The names of its columns."""

    @property
    def any_line_may_add_columns(self) -> bool:
        """Whether rows name their own columns, so that ``names``, those of the first, may not be all."""

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Read the columns ``names`` of the first ``limit`` rows (None: all); raises TraceError."""

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns ``names`` of all rows, to be read with ``collected``."""

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Read what was selected of ``lazy``, in batches; raises TraceError."""


def open_trace(path: str) -> TraceFile:
    """Return the file at ``path`` (``~`` is expanded), told by its ending; raises TraceError without one."""
    try:
        place = Path(path).expanduser()
        mode = place.stat().st_mode
    except FileNotFoundError:
        raise TraceError(str(place), None, f"no such file{_near(place)}") from None
    except (OSError, RuntimeError, ValueError) as error:  # too long, no permission, no such home, a NUL
        problem = getattr(error, "strerror", None) or error
        raise TraceError(_cut(path), None, f"cannot be read: {problem}") from None
    if stat.S_ISDIR(mode):
        raise TraceError(str(place), None, f"is a folder; expected a file, {KINDS}")
    if not stat.S_ISREG(mode):
        raise TraceError(str(place), None, f"is a device or a pipe; expected a file, {KINDS}")
    name = place.name.lower()
    try:
        if name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
            return CsvFile(place, *_csv_header(place))
        if name.endswith((".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")):
            return JsonLinesFile(place, *_first_object(place))
        if name.endswith((".parquet", ".pq")):
            return TypedFile(place, typed_names(place, arrow=False))
        if name.endswith((".arrow", ".feather", ".ipc")):
            return TypedFile(place, typed_names(place, arrow=True), arrow=True)
    except OSError as error:
        raise TraceError(str(place), None, f"cannot be read: {reason(error)}") from error
    unpack = next((command for ending, command in _PACKED.items() if name.endswith(ending)), None)
    if unpack is not None:
        raise TraceError(str(place), None, f"is compressed; unpack it with {unpack}; expected {KINDS}")
    raise TraceError(str(place), None, f"unknown kind of file; expected {KINDS}")


@dataclass(frozen=True, slots=True)
class CsvFile:
    """Separated values with a header; every cell is text, as written.

    The separator is a comma, or what a header without commas has: semicolons, tabs or bars.
    """

    path: Path
    names: list[str]
    header_line: int
    separator: str = ","
    any_line_may_add_columns: bool = False

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Read the columns as text."""
        try:
            source = self.path if limit is None else self._head(limit)
            # All columns are read, not only names: only then is a line with too many fields an error.
            return self._scan(source).collect().select(names)
        except unreadable() as error:
            self._explain(error)

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns as text."""
        return self._scan(self.path).select(names)

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Read what was selected."""

        try:
            return lazy.collect(engine="streaming")
        except unreadable() as error:
            self._explain(error)

    def require_whole_rows(self) -> None:
        """Raise TraceError at the first row with fewer fields than the header, as a cut file ends with."""
        for line, record in _csv_records(self.path, self.separator):
            if 0 < len(record) < len(self.names):
                problem = f"{len(record)} fields; the header has {len(self.names)}: is the file cut off?"
                raise TraceError(str(self.path), line, problem)

    def place(self, row: int) -> tuple[int | None, str]:
        """Return the line the row begins on (quoted cells may span lines)."""
        for number, (line, record) in enumerate(_csv_records(self.path, self.separator), -1):
            if number == row:
                return line, "" if record else "the line is empty: "
        return None, f"row {row + 1}: "

    def _scan(self, source: Path | io.BytesIO) -> pl.LazyFrame:
        import polars as pl

        return pl.scan_csv(source, infer_schema=False, glob=False, separator=self.separator)

    def _head(self, records: int) -> io.BytesIO:
        """The lines up to so many records below the header; one ends where all its quotes are closed."""
        kept, missing, quotes = [], records, 0
        for line, text in _lines(self.path):
            if line > self.header_line and missing == 0:
                break
            kept.append(text)
            quotes += text.count('"')
            missing -= line > self.header_line and quotes % 2 == 0
        return io.BytesIO("".join(kept).encode())

    def _explain(self, error: BaseException) -> NoReturn:
        """Find the line that cannot be read, going through the file the slow way."""
        for line, record in _csv_records(self.path, self.separator):
            if len(record) > len(self.names):
                problem = f"{len(record)} fields; the header has {len(self.names)}"
                raise TraceError(str(self.path), line, problem) from error
        raise TraceError(str(self.path), None, f"is not CSV: {_first_line(error)}") from error


@dataclass(frozen=True, slots=True)
class JsonLinesFile:
    """One JSON object per line; empty lines are passed over. Every value is text, as written."""

    path: Path
    names: list[str]
    header_line: int
    any_line_may_add_columns: bool = True

    def table(self, names: list[str], limit: int | None) -> pl.DataFrame:
        """Read the columns as text; an object that lacks one gives null."""
        import polars as pl

        schema = dict.fromkeys(names, pl.String())
        self._require_keys_once(names, limit)
        try:
            source = self._whole() if limit is None else self._head(limit)
            return pl.scan_ndjson(source, schema=schema).collect()
        except unreadable() as error:
            self._explain(error)

    def lazy(self, names: list[str]) -> pl.LazyFrame:
        """Return the columns as text."""
        import polars as pl

        self._require_keys_once(names, None)
        return pl.scan_ndjson(self._whole(), schema=dict.fromkeys(names, pl.String()))

    def collected(self, lazy: pl.LazyFrame) -> pl.DataFrame:
        """Read what was selected."""

        try:
            return lazy.collect(engine="streaming")
        except unreadable() as error:
            self._explain(error)

    def place(self, row: int) -> tuple[int | None, str]:
        """Return the line of the row."""
        for number, (line, _) in enumerate(json_lines(self.path)):
            if number == row:
                return line, ""
        return None, f"row {row + 1}: "

    def later_names(self, of_interest: Callable[[str], bool], limit: int | None) -> list[str]:
        """Return the names of interest that only later ones of the first ``limit`` objects have."""
        found: list[str] = []
        passed = set(self.names)
        with contextlib.suppress(TraceError):  # reading the rows names a damaged line
            for line, text in itertools.islice(json_lines(self.path), limit):
                for name in _KEY.findall(text):
                    if name not in passed:
                        passed.add(name)
                        if of_interest(name) and name in _json_object(self.path, line, text):
                            found.append(name)
        return found

    def _require_keys_once(self, names: list[str], limit: int | None) -> None:
        """Raise TraceError at the first object that has a key twice, of which Polars takes one in silence."""
        keys = [json.dumps(name, ensure_ascii=False) for name in names]
        for line, text in itertools.islice(json_lines(self.path), limit):
            for key in keys:
                if text.count(key) > 1:  # also a value, or a key further in: reading it tells
                    _json_object(self.path, line, text)
                    break

    def _whole(self) -> str | io.BytesIO:
        """The path for Polars, or the content without the byte order mark that Polars does not know."""
        with self.path.open("rb") as file:
            if file.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8:
                return io.BytesIO(file.read())
        return glob.escape(str(self.path))

    def _head(self, objects: int) -> io.BytesIO:
        """The lines of so many objects."""
        kept = [text for _, text in itertools.islice(json_lines(self.path), objects)]
        return io.BytesIO("".join(kept).encode())

    def _explain(self, error: BaseException) -> NoReturn:
        """Find the line that cannot be read, going through the file the slow way."""
        for line, text in json_lines(self.path):
            _json_object(self.path, line, text)
        raise TraceError(str(self.path), None, f"is not JSON lines: {_first_line(error)}") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file, compressed or not, counted from 1; raises TraceError on what is not text."""
    line = 0
    try:
        with path.open("rb") as stored, _unpacked(stored, path) as opened:
            for line, raw in enumerate(opened, 1):
                yield line, raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise TraceError(str(path), line, f"is not UTF-8 text: {error.reason}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise TraceError(str(path), None, f"is not a whole gzip file: {error}") from error


def _unpacked(stored: IO[bytes], path: Path) -> contextlib.AbstractContextManager[Iterable[bytes]]:
    return gzip.open(stored) if path.name.lower().endswith(".gz") else contextlib.nullcontext(stored)


def _csv_records(path: Path, separator: str = ",") -> Iterator[tuple[int, list[str]]]:
    """The records with the line each begins on, header first; empty lines before it are passed over."""
    reader = csv.reader((text for _, text in _lines(path)), strict=True, delimiter=separator)
    begin, header_seen = 1, False
    try:
        for record in reader:
            header_seen = header_seen or bool(record)
            if header_seen:
                yield begin, record
            begin = reader.line_num + 1
    except csv.Error as error:
        raise TraceError(str(path), begin, f"is not CSV: {error}") from error


def _csv_header(path: Path) -> tuple[list[str], int, str]:
    """Return the names, their line and the separator; raises TraceError."""
    line, names = next(_csv_records(path), (0, []))
    separator = max(_SEPARATORS, key=names[0].count) if len(names) == 1 else ","
    if len(names) == 1:
        line, names = next(_csv_records(path, separator))
    if not names:
        raise TraceError(str(path), None, "is empty")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise TraceError(str(path), line, f"has the column {twice[0]} twice")
    return names, line, separator


def json_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Return the lines of JSON lines with their numbers, without empty ones; raises TraceError."""
    return ((line, text) for line, text in _lines(path) if text.strip())


def _json_object(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        found = read_json(text, finite=True)
    except DocumentError as error:
        raise TraceError(str(path), line, error.problem) from error
    if not isinstance(found, dict):
        raise TraceError(str(path), line, f"is not a JSON object: {text.strip()[:60]}")
    return found


def _first_object(path: Path) -> tuple[list[str], int]:
    for line, text in json_lines(path):
        return list(_json_object(path, line, text)), line
    raise TraceError(str(path), None, "is empty")


def is_file(path: Path) -> bool:
    """Return whether there is such a file, also for names that no file can have."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _near(path: Path) -> str:
    """What there is instead of ``path``: the nearest name in its folder, or the folder's absence."""
    folder = path.parent
    if not folder.is_dir():
        return f", and no folder {folder.absolute()}"
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f" in {folder.absolute()}; did you mean {near[0]!r}?" if near else f" in {folder.absolute()}"
