"""The page of known misses has what the simulator says today, and its tables add up."""

from __future__ import annotations

import re

import pytest

from benchmarks import published
from benchmarks.known_misses import CONTEXT, DECODING, PAGE, row_of
from benchmarks.published import Figure, Stage


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_figures_of_single_users_stand_in_the_page_as_simulated(page: str) -> None:
    for figure in (*published.eagle(), published.two_nodes()):
        assert row_of(figure) in page


def test_the_parts_of_a_wide_decode_step_stand_in_the_page_and_add_up(page: str) -> None:
    parts = published.step_parts(DECODING, CONTEXT)
    for name, value in parts:
        assert f"| {name} | {value:.1f} ms |" in page
    assert all(value > 0 for _, value in parts)
    assert f"| **step** | {sum(value for _, value in parts):.1f} ms |" in page


def test_a_figure_says_its_error_with_its_sign() -> None:
    assert row_of(Figure("x", "y", "TPOT", "ms", 10.0, 7.5)).endswith("| 10 ms | 7.5 ms | −25 % |")
    assert row_of(Figure("x", "y", "gain", "", 1.36, 1.4)).endswith("| 1.36 | 1.4 | +3 % |")


def test_every_stage_of_a_ladder_is_counted_apart_from_the_others() -> None:
    published.LADDER, ladder = ((2, 5), (4, 5)), published.LADDER  # type: ignore[misc]
    try:
        stages = published.ladder("llama3_8b", 1, 1, 20, 10, "round_robin", "workload.repeated_prompts=null")
    finally:
        published.LADDER = ladder  # type: ignore[misc]
    assert [stage.rate for stage in stages] == [2, 4]
    assert all(isinstance(stage, Stage) and stage.requests > 0 for stage in stages)
    assert all(0 < stage.tokens_per_s <= 10 * stage.requests / 4 for stage in stages)


def test_every_section_of_the_page_has_a_published_figure(page: str) -> None:
    assert len(re.findall(r"^## ", page, flags=re.MULTILINE)) == 9
    assert page.count("| ") > 100
