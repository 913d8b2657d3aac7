"""A log of steps may have the exact query-key pairs of its prompts; fits keep the totals of both kinds of steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cost.step_tables import regression

from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.tables import read_measurements
from hermes_flow.errors import ConfigError


def law_us(chunks: list[tuple[int, int]], decodes: int) -> float:
    """3 ms, 2 µs a token, 50 µs a decode, and with prompts 1 ms and 0.03 µs a pair."""
    pairs = sum(tokens * (context + tokens / 2) for tokens, context in chunks)
    tokens = sum(count for count, _ in chunks) + decodes
    return 3000 + 2 * tokens + 50 * decodes + (1000 + 0.03 * pairs) * bool(chunks)


def written(path: Path, *, column: str) -> Path:
    """Write a log in which two prompts of a step are of unequal length."""
    rng = np.random.default_rng(7)
    lines = [f"prefills,prefill_tokens,prefill_context,{column},decodes,decode_context,duration_us,add_us"]
    for number in range(400):
        long, short, past = (int(size) for size in rng.integers([200, 5, 0], [900, 60, 300]))
        chunks = [(long, 0), (short, past)] if number % 3 else []
        decodes = int(rng.integers(1, 9))
        exact = sum(tokens * (tokens + 1) // 2 + tokens * context for tokens, context in chunks)
        words = " ".join(f"{tokens}@{context}" for tokens, context in chunks)
        told = {"chunks": words, "prefill_pairs": exact, "other": 0}[column]
        sizes = (len(chunks), sum(tokens for tokens, _ in chunks), sum(context for _, context in chunks))
        time = law_us(chunks, decodes)
        lines.append(f"{','.join(map(str, sizes))},{told},{decodes},{300 * decodes},{time - 40},40")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("column", ["chunks", "prefill_pairs"])
def test_prompts_of_unequal_length_take_what_their_pairs_do(column: str, tmp_path: Path) -> None:
    cost = regression(written(tmp_path / "steps.csv", column=column))
    for chunks, decodes in (([(800, 0), (10, 250)], 3), ([(300, 0), (50, 10)], 8)):
        found = cost.step_ps(chunks, decodes, 300 * decodes) / 1e6
        assert found == pytest.approx(law_us(chunks, decodes), rel=0.004)


def test_without_pairs_prompts_count_as_equally_long(tmp_path: Path) -> None:
    steps = read_measurements(str(written(tmp_path / "steps.csv", column="other")), {}, "cost").steps(1, "")
    exact = read_measurements(str(written(tmp_path / "exact.csv", column="chunks")), {}, "cost").steps(1, "")
    assert steps.exact_pairs is None
    assert exact.pairs.sum() > 1.2 * steps.pairs.sum()


def test_chunks_that_do_not_add_up_are_left_out_by_line(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    head = "prefill_tokens,chunks,decodes,decode_context,time_us\n"
    path.write_text(head + "5,4@0,0,0,9\n5,5@x,0,0,9\n,,3,10,9\n5,5@0,0,0,9\n", encoding="utf-8")
    measured = read_measurements(str(path), {}, "cost")
    assert [fault.partition("steps.csv:")[2] for fault in measured.faults] == [
        "2: chunks have 4 tokens, prefill_tokens 5; expected as many",
        "3: chunks is '5@x'; expected TOKENS@CONTEXT for each prompt, such as 342@0 16@512",
        "4: prefill_tokens is empty; expected a number ≥ 0",
    ]
    path.write_text(head + "5,4@0,0,0,9\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="none of 1 rows"):
        read_measurements(str(path), {}, "cost")


def test_steps_with_prompts_and_steps_without_keep_their_totals(tmp_path: Path) -> None:
    """Decode steps that are slow now and then, by pauses, do not make prompts slower."""
    rng = np.random.default_rng(3)
    lines = ["prefill_tokens,decodes,decode_context,time_us"]
    for number in range(600):
        tokens, decodes = (int(rng.integers(50, 400)), 0) if number % 4 == 0 else (0, int(rng.integers(1, 9)))
        time = 900 + 20 * tokens + 60 * decodes
        lines.append(f"{tokens},{decodes},{50 * decodes},{time * (4 if decodes and number % 10 == 1 else 1)}")
    path = tmp_path / "steps.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    steps = read_measurements(str(path), {}, "cost").steps(1, "")
    assert steps.rows is not None
    assert steps.mean_us is not None
    found = fitted_us(fit_steps(steps, "piecewise"), steps)
    for kind in (0, 1):
        own = steps.kind == kind
        total = float(steps.rows[own] @ steps.mean_us[own])
        assert float(steps.rows[own] @ found[own]) == pytest.approx(total, rel=0.003)
