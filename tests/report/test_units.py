"""Figures are short, and never say more than is true."""

from __future__ import annotations

import pytest

from hermes_flow.metrics.number_text import (
    alike,
    counted,
    digits,
    dollars,
    duration,
    joules,
    percent,
    shortened,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0, "0 s"),
        (3e-9, "0.00300 µs"),
        (412e-6, "412 µs"),
        (0.9996e-3, "1.00 ms"),
        (0.00831, "8.31 ms"),
        (0.2, "200 ms"),
        (0.9996, "1.00 s"),
        (1.2, "1.20 s"),
        (119.9, "120 s"),
        (312.0, "5.20 min"),
        (12_240.0, "3.40 h"),
    ],
)
def test_durations_have_three_digits_and_a_fitting_unit(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.042, "0.0420"),
        (0.5, "0.500"),
        (0.9996, "1.00"),
        (9.996, "10.0"),
        (99.96, "100"),
        (1234.5, "1,234"),
    ],
)
def test_numbers_have_about_three_digits(value, text):
    assert digits(value) == text


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (None, "–"),
        (0.0, "0 %"),
        (1e-6, "<1 %"),
        (0.423, "42 %"),
        (0.9951, "99.5 %"),
        (0.99999, "99.9 %"),
        (1.0, "100 %"),
    ],
)
def test_shares_are_0_or_100_percent_only_when_they_are(fraction, text):
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("usd", "text"), [(None, "–"), (0, "$0.00"), (0.0123, "$0.0123"), (4.2, "$4.20"), (1234.4, "$1,234")]
)
def test_money_keeps_its_cents(usd, text):
    assert dollars(usd) == text


def test_durations_beside_each_other_share_the_unit_of_the_first():
    assert alike([0.9984, 1.0213, None, 0.0]) == ["998 ms", "1,021 ms", "–", "0 ms"]
    assert alike([None, 121.0, 60.0]) == ["–", "2.02 min", "1.00 min"]
    assert alike([None, 0.0]) == ["–", "0 s"]


def test_counts_agree_with_their_noun():
    assert (counted(1, "request"), counted(1234, "request")) == ("1 request", "1,234 requests")


def test_long_text_loses_its_middle():
    assert shortened("sapphire_rapids", 15) == "sapphire_rapids"
    assert shortened("sapphire_rapids", 9) == "sapp…pids"


@pytest.mark.parametrize(
    ("energy_j", "text"),
    [
        (0.0, "0 J"),
        (12.34, "12.3 J"),
        (999.4, "999 J"),
        (999.6, "1.00 kJ"),
        (3.59e6, "3,590 kJ"),
        (9e6, "2.50 kWh"),
    ],
)
def test_joules_turn_into_kilowatt_hours_where_they_are_many(energy_j, text):
    assert joules(energy_j) == text
