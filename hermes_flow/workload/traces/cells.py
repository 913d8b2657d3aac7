"""Converts the cells of a trace column to whole numbers exactly; an invalid cell becomes null."""

from __future__ import annotations

import decimal
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl

INT64_MAX = 2**63 - 1


class Cells(Protocol):
    """A way to read a column, whether the file has text, integers or floats."""

    @property
    def expected(self) -> str:
        """The content of a valid cell, for messages."""

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the cells as Int64, null where one is missing or not valid."""


def text_of(cells: pl.Series) -> pl.Series:
    """Return the cells as text without surrounding blanks; blank ones are null."""
    import polars as pl

    if cells.dtype.is_nested() or cells.dtype == pl.Duration or cells.dtype == pl.Object:
        lists = [None if cell is None else str(cell) for cell in cells.to_list()]
        return pl.Series(cells.name, lists, dtype=pl.String)
    text = cells.cast(pl.String, strict=False).str.strip_chars()
    return text if text.is_null().all() else text.set(text == "", None)


@dataclass(frozen=True, slots=True)
class Whole:
    """Whole numbers from ``least`` (None: any) to ``most``, also written as 12.0."""

    expected: str
    least: int | None = None
    most: int = INT64_MAX

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the numbers."""
        import polars as pl

        if cells.dtype.is_integer():
            values = cells.cast(pl.Int64, strict=False)
        elif cells.dtype.is_float():
            values = cells.set(~(cells == cells.floor()).fill_null(False), None).cast(pl.Int64, strict=False)
        else:
            text = text_of(cells)
            values = text.cast(pl.Int64, strict=False)
            if values.null_count() > text.null_count():
                values = text.str.replace(r"^([+-]?[0-9]+)\.0*$", "$1").cast(pl.Int64, strict=False)
        if self.most < INT64_MAX:
            values = values.set(values > self.most, None)
        return values if self.least is None else values.set(values < self.least, None)


@dataclass(frozen=True, slots=True)
class Clock:
    """Times from 0 in a unit of 10**-``digits`` seconds, read as nanoseconds without rounding through floats.

    Text is exact to the nanosecond, however many digits it has; floats are as exact as they are.
    """

    unit: str
    digits: int

    @property
    def expected(self) -> str:
        """The content of a valid cell."""
        return f"a time in {self.unit}, 0 or more"

    @property
    def most(self) -> int:
        """The longest time in its unit, whole: nanoseconds of 64 bits reach 292 years."""
        return INT64_MAX // self._scale - 1

    @property
    def _scale(self) -> int:
        return int(10 ** (9 - self.digits))

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the times in ns."""
        import polars as pl

        scale, most = self._scale, self.most
        if cells.dtype == pl.Duration:
            spans = cells.dt.total_nanoseconds()
            return spans.set(spans < 0, None)
        if cells.dtype.is_integer():
            whole = cells.cast(pl.Int64, strict=False)
            nanoseconds: pl.Series = whole.set((whole < 0) | (whole > most), None) * scale
            return nanoseconds
        if cells.dtype.is_float():
            valid = (cells.is_finite() & (cells >= 0) & (cells < most)).fill_null(False)
            times = cells.cast(pl.Float64).set(~valid, None)
            part = times - times.floor()
            exact: pl.Series = times.floor().cast(pl.Int64) * scale + (part * scale).round().cast(pl.Int64)
            return exact
        return self._read_text(text_of(cells), scale, most)

    def _read_text(self, text: pl.Series, scale: int, most: int) -> pl.Series:
        """Read plain decimals a column at a time, and what remains (1e-05, +3, garbage) one by one."""
        import polars as pl

        whole = text.str.extract(r"^([0-9]{1,18})(?:\.[0-9]*)?$").cast(pl.Int64)
        decimals = (
            text.str.extract(r"^[0-9]+\.([0-9]+)$").fill_null("0").str.pad_end(18, "0").str.slice(0, 18)
        )
        unit = 10**18 // scale
        fraction = (decimals.cast(pl.Int64) + unit // 2) // unit
        times = whole.set(whole > most, None) * scale + fraction
        odd = (times.is_null() & text.is_not_null()).arg_true()
        if len(odd):
            exact = [self._exact(cell, scale) for cell in text.gather(odd)]
            times = times.scatter(odd, pl.Series(exact, dtype=pl.Int64))
        return times

    def _exact(self, cell: str, scale: int) -> int | None:
        if "_" in cell or not cell.isascii():  # Decimal reads 1_000 and ١٢, as Python does
            return None
        try:
            time = Decimal(cell)
        except decimal.InvalidOperation:
            return None
        # The exponent is looked at first: 1e999999 must not be written out.
        if not time.is_finite() or time < 0 or (time and time.adjusted() > 19):
            return None
        time_ns = int((time * scale).quantize(Decimal(1), rounding=decimal.ROUND_HALF_UP))
        return time_ns if time_ns <= INT64_MAX else None


@dataclass(frozen=True, slots=True)
class Date:
    """Dates with time of day, as nanoseconds since 1970; without an offset they are taken as UTC."""

    @property
    def expected(self) -> str:
        """The content of a valid cell."""
        return "a date and time such as 2023-11-16 18:15:46.6805900"

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the instants in ns."""
        import polars as pl

        if cells.dtype in (pl.Duration, pl.Time):
            return pl.Series(cells.name, [None] * len(cells), dtype=pl.Int64)
        if cells.dtype.is_temporal():
            moments = cells.cast(pl.Datetime("ns"), strict=False) if cells.dtype == pl.Date else cells
            return moments.dt.cast_time_unit("ns").cast(pl.Int64)
        text = text_of(cells).str.replace(r"^(\d{4}-\d\d-\d\d)T", "$1 ").str.replace(r"Z$", "+00:00")
        plain = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f", time_unit="ns", strict=False).cast(pl.Int64)
        if plain.null_count() == text.null_count():
            return plain
        zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", time_unit="ns", strict=False).cast(pl.Int64)
        return plain.zip_with(plain.is_not_null(), zoned)


@dataclass(frozen=True, slots=True)
class Names:
    """Whole numbers from 0 as they are; or else any text, numbered from 0 by first appearance."""

    @property
    def expected(self) -> str:
        """The content of a valid cell."""
        return "a name, or a whole number of 0 or more"

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the numbers."""
        import polars as pl

        text = text_of(cells)
        numbers = text.cast(pl.Int64, strict=False)
        if numbers.null_count() == text.null_count():
            return numbers.set(numbers < 0, None)
        names = text.drop_nulls().unique(maintain_order=True)
        order = pl.int_range(len(names), eager=True, dtype=pl.Int64)
        return text.replace_strict(names, order, default=None, return_dtype=pl.Int64)


@dataclass(frozen=True, slots=True)
class Texts:
    """Any text, also digits, numbered from 0 by first appearance."""

    expected: str

    def read(self, cells: pl.Series) -> pl.Series:
        """Return the numbers."""
        import polars as pl

        names = self.names(cells)
        order = pl.int_range(len(names), eager=True, dtype=pl.Int64)
        return text_of(cells).replace_strict(
            pl.Series(names, dtype=pl.String), order, default=None, return_dtype=pl.Int64
        )

    def names(self, cells: pl.Series) -> list[str]:
        """Return the texts in the order of their numbers."""
        names: list[str] = text_of(cells).drop_nulls().unique(maintain_order=True).to_list()
        return names


_ID = r"[0-9A-Za-z_-]+"
_WHOLE = r"-?[0-9]+"
_QUOTED = f"\"{_ID}\"|'{_ID}'"


def _listed(item: str) -> str:
    return rf"\[\s*(?:(?:{item})\s*(?:,\s*(?:{item})\s*)*)?\]"


_BLOCKS = f"^(?:{_listed(_WHOLE)}|{_listed(_QUOTED)}|{_WHOLE}|{_ID}(?:\\|{_ID})+)$"


@dataclass(frozen=True, slots=True)
class Blocks:
    """Lists of ids of blocks, or of images, written as [1, 2, 3], ["a1", "b2"] or 1|2|3 in a file of text.

    They are read as their lengths. Images may also be one name alone.
    """

    of: str = "block"

    @property
    def expected(self) -> str:
        """The content of a valid cell."""
        return f"a list of {self.of} ids such as [0, 1, 2] or 0|1|2"

    def read(self, cells: pl.Series) -> pl.Series:
        """Return how many ids each list has."""
        import polars as pl

        text = text_of(cells)
        return text.str.count_matches(_ID).cast(pl.Int64).set(~text.str.contains(self._valid), None)

    @property
    def _valid(self) -> str:
        return _BLOCKS if self.of == "block" else f"{_BLOCKS}|^{_ID}$"

    def ids(self, cells: pl.Series) -> pl.Series:
        """Return all ids of valid cells in one Int64 column, row after row; a missing cell has none.

        Where some id is not a whole number of 64 bits, all are numbered from 0 by first appearance.
        """
        import polars as pl

        found = text_of(cells).str.extract_all(_ID).explode().drop_nulls()
        numbers = found.cast(pl.Int64, strict=False)
        if not numbers.null_count():
            return numbers
        names = found.unique(maintain_order=True)
        order = pl.int_range(len(names), eager=True, dtype=pl.Int64)
        return found.replace_strict(names, order, return_dtype=pl.Int64)


@dataclass(frozen=True, slots=True)
class Truth:
    """Truth values, written as true and false or as 1 and 0."""

    expected: str = "true or false"

    def read(self, cells: pl.Series) -> pl.Series:
        """Return 1 for true and 0 for false."""
        import polars as pl

        words = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}
        text = cells.cast(pl.String, strict=False).str.strip_chars().str.to_lowercase()
        return text.replace_strict(words, default=None, return_dtype=pl.Int64)


TOKENS = Whole("a whole number of tokens, at least 1", least=1, most=10**12)  # as drawn lengths have
IMAGES = Whole("a whole number of images, 0 or more", least=0, most=10**6)
