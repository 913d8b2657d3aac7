"""Columns of tables are the same whether or not all their rows are, and rows that are alike take memory once."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from hermes_flow.metrics.tables.series import floats, in_turn, integers, names


@pytest.mark.parametrize("index", [[0, 0, 0], [1, 1], [-1, -1], [0, 1, -1], []])
def test_names_are_those_of_the_index_and_null_for_minus_one(index: list[int]) -> None:
    found = names(["first", "a name that is longer than twelve letters"], np.array(index, dtype=np.int64))
    among = ["first", "a name that is longer than twelve letters", None]
    assert found.dtype == pl.String
    assert found.to_list() == [among[place] for place in index]


@pytest.mark.parametrize("values", [[0, 0, 0], [3, 0, -1], [-1, -1], []])
def test_integers_are_null_where_they_are_negative(values: list[int]) -> None:
    found = integers(np.array(values, dtype=np.int64), len(values))
    assert found.dtype == pl.Int64
    assert found.to_list() == [None if value < 0 else value for value in values]


def test_floats_are_null_where_they_are_not_a_number_and_zeros_keep_their_signs() -> None:
    assert floats(np.array([0.0, 0.0])).to_list() == [0.0, 0.0]
    assert floats(np.array([np.nan, 1.5])).to_list() == [None, 1.5]
    assert np.signbit(floats(np.array([0.0, -0.0])).to_numpy()).tolist() == [False, True]


def test_zeros_of_both_types_stay_apart() -> None:
    assert integers(np.zeros(2, np.int64), 2).dtype == pl.Int64
    assert floats(np.zeros(2)).dtype == pl.Float64
    assert integers(None, 2).to_list() == [None, None]


def test_names_in_turn_are_repeated() -> None:
    assert in_turn(("a", "b"), 2).to_list() == ["a", "b", "a", "b"]
    assert in_turn((), 2).to_list() == in_turn(("a",), 0).to_list() == []


def test_columns_of_equal_rows_share_their_memory() -> None:
    first, second = (integers(np.zeros(100, dtype=np.int64), 100).to_numpy() for _ in range(2))
    assert np.shares_memory(first, second)
