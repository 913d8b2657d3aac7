"""The KV capacity that follows from the memory, against what servers reported, as the page says."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kv_capacities import PAGE, REPORTED, h100_errors, h100_row, left_open, pool_of, table
from hermes_flow.pools.llm.capacity import kv_capacity


def test_the_table_on_the_page_is_what_its_command_writes() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table(None, page) in page, "run python -m benchmarks.kv_capacities"


@pytest.mark.parametrize("reported", REPORTED, ids=lambda reported: reported.what)
def test_known_flags_give_the_reported_tokens_within_five_percent(reported) -> None:  # type: ignore[no-untyped-def]
    pool = pool_of(reported.overrides)
    capacity = kv_capacity(pool)
    if reported.known:
        assert capacity.tokens == pytest.approx(reported.tokens, rel=0.05)
    else:  # what unknown flags must explain is less than a twentieth of the memory
        assert 0 < left_open(pool, capacity, reported.tokens) < 0.05


@pytest.mark.shared_data
def test_kv_blocks_of_vllm_on_h100_are_met_as_the_page_says(shared_data: Path) -> None:
    errors = h100_errors(shared_data)
    assert len(errors) == 11
    assert max(map(abs, errors)) < 0.003
    assert h100_row(shared_data) in PAGE.read_text(encoding="utf-8")
