from __future__ import annotations

import decimal
from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.workload.traces.cells import INT64_MAX, Blocks, Clock, Date, Names, Whole

UNITS = {0: 10**9, 3: 10**6, 6: 10**3, 9: 1}
digits = st.sampled_from(sorted(UNITS))


@given(time_ns=st.lists(st.integers(0, INT64_MAX // 2), min_size=1), digits=digits)
def test_a_time_written_out_in_any_unit_is_read_back_exactly(time_ns: list[int], digits: int) -> None:
    scale = UNITS[digits]
    cells = [f"{time // scale}.{time % scale:0{9 - digits}d}" if scale > 1 else str(time) for time in time_ns]
    assert Clock("any", digits).read(pl.Series(cells)).to_list() == time_ns


def exactly(cell: str, scale: int) -> int | None:
    """What a cell of text means, by decimal arithmetic."""
    try:
        time = Decimal(cell.strip())
    except decimal.InvalidOperation:
        return None
    if not time.is_finite() or time < 0 or time > 10**19:
        return None
    time_ns = int((time * scale).quantize(Decimal(1), decimal.ROUND_HALF_UP))
    return time_ns if time_ns <= INT64_MAX else None


numbers = st.one_of(
    st.text("0123456789.e+- ", max_size=12),
    st.floats(0, 1e9).map(repr),
    st.decimals(0, 10**9, places=12).map(str),
    st.integers(0, 10**11).map(str),
)


@given(cells=st.lists(numbers, min_size=1), digits=digits)
def test_whole_columns_and_single_cells_are_read_alike(cells: list[str], digits: int) -> None:
    expected = [exactly(cell, UNITS[digits]) for cell in cells]
    assert Clock("any", digits).read(pl.Series(cells)).to_list() == expected


@given(times=st.lists(st.floats(0, 1e8), min_size=1))
def test_float_times_are_as_exact_as_they_are(times: list[float]) -> None:
    expected = [int((Decimal(time) * 10**9).quantize(Decimal(1), decimal.ROUND_HALF_UP)) for time in times]
    read = Clock("seconds", 0).read(pl.Series(times)).to_numpy()
    assert np.abs(read - np.array(expected)).max() <= 1


@pytest.mark.parametrize(
    "cells",
    [
        pl.Series(["x", "nan", "inf", "-1", "1e99", "1e999999999", "", "1,5", "0x10", "1_0", "\u0661", None]),
        pl.Series([-1.0, float("nan"), float("inf"), 1e18, None]),
        pl.Series([-1, 2**62, None]),
        pl.Series([True, False]),
        pl.Series([[1.0], [2.0]]),
    ],
)
def test_what_is_no_time_from_zero_is_null(cells: pl.Series) -> None:
    assert Clock("seconds", 0).read(cells).null_count() == len(cells)


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (
            pl.Series(["1", " 2 ", "3.0", "4.", "5.5", "0", "-1", "1e3", "", "x", None]),
            [1, 2, 3, 4, *7 * [None]],
        ),
        (pl.Series([1.0, 2.5, float("nan"), float("inf"), 0.0, None]), [1, *5 * [None]]),
        (pl.Series([1, 0, -1, None]), [1, *3 * [None]]),
        (pl.Series([1, 2**64 - 1], dtype=pl.UInt64), [1, None]),
        (pl.Series([Decimal("2.00"), Decimal("2.50")]), [2, None]),
        (pl.Series([True]), [None]),
    ],
)
def test_whole_numbers_are_read_from_every_type(cells: pl.Series, expected: list[int | None]) -> None:
    assert Whole("a number", least=1).read(cells).to_list() == expected


@pytest.mark.parametrize("cell", ["2023-11-16", "18:15:46", "2024-02-30 00:00:00", "1700158546", "yesterday"])
def test_what_is_no_date_with_a_time_is_null(cell: str) -> None:
    assert Date().read(pl.Series([cell])).to_list() == [None]


@given(time_ns=st.lists(st.integers(0, 4 * 10**18), min_size=1))
def test_dates_are_read_to_the_nanosecond(time_ns: list[int]) -> None:
    days = pl.Series(time_ns).cast(pl.Datetime("ns")).dt.strftime("%Y-%m-%d %H:%M:%S")
    cells = [f"{day}.{time % 10**9:09d}" for day, time in zip(days, time_ns, strict=True)]
    assert Date().read(pl.Series(cells)).to_list() == time_ns


@given(names=st.lists(st.text("abxyz", min_size=1, max_size=3), min_size=1))
def test_names_are_numbered_by_first_appearance(names: list[str]) -> None:
    order = list(dict.fromkeys(names))
    assert Names().read(pl.Series(names)).to_list() == [order.index(name) for name in names]


def test_negative_session_numbers_are_null() -> None:
    assert Names().read(pl.Series([3, -1])).to_list() == [3, None]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (
            pl.Series(["[]", "[1]", "[ 1, -2 ,3]", "[1,]", "1,2", "[x]", "[1.5]", "x", None]),
            [0, 1, 3, *6 * [None]],
        ),
        (pl.Series(["1|2|3", "7", "a0|b1", '["a", "b"]', "['a']", "|1"]), [3, 1, 2, 2, 1, None]),
        (pl.Series([[1, 2], [], [None], None]), [2, 0, None, None]),
        (pl.Series([["a"], [], ["1"]]), [1, 0, 1]),
        (pl.Series([1, 2]), [1, 1]),
    ],
)
def test_block_lists_are_read_as_the_numbers_of_their_ids(
    cells: pl.Series, expected: list[int | None]
) -> None:
    assert Blocks().read(cells).to_list() == expected


def test_ids_that_are_no_numbers_of_64_bits_are_numbered_by_first_appearance() -> None:
    large = 10**30
    assert Blocks().ids(pl.Series([f"[{large}, 5]", "[5]"])).to_list() == [0, 1, 1]
    assert Blocks().ids(pl.Series(["b|a", "a|c"])).to_list() == [0, 1, 1, 2]
