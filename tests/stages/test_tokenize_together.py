"""A host that tokenizes gathered prompts in one pass hands all of them on when the last one is done."""

from __future__ import annotations

import pytest

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError

TOKENS, PER_TOKEN_US, FIXED_US = 1000, 2.0, 500.0
STAGE = f"kind: tokenize_together, fixed_us: {FIXED_US}, per_token_us: {PER_TOKEN_US}"
ALONE_S = 1e-6 * (FIXED_US + PER_TOKEN_US * TOKENS)


def ends_s(prompts: int, cores: int, max_batch: int = 4, wait_ms: float = 0.0) -> list[float]:
    """Return when the prompts of so many requests that arrive together leave the tokenizer."""
    pool = f"serves: [tokenize_together], cores: {cores}, max_batch: {max_batch}, wait_ms: {wait_ms}"
    stages = hf.simulate(hf.compile(described(prompts, pool))).stages
    ends: list[float] = stages.filter(stages["stage"] == "tokenize")["finish_s"].sort().to_list()
    return ends


def described(prompts: int, pool: str, hardware: str = "sapphire_rapids") -> hf.Config:
    return hf.compose(
        [
            *("pipeline=llm", "workload=closed_loop", f"workload.requests={prompts}"),
            *(f"workload.arrivals.concurrency={prompts}", f"workload.input_tokens={TOKENS}"),
            f"+cluster.pools.text={{kind: batched, {pool}}}",
            f"+hardware@cluster.pools.text.hardware={hardware}",
            f"+pipeline.stages.tokenize={{{STAGE}}}",
            "+pipeline.stages.prefill.after=[tokenize]",
        ]
    )


def test_no_prompt_leaves_before_the_last_one_of_its_pass() -> None:
    assert ends_s(6, cores=1) == pytest.approx([4 * ALONE_S] * 4 + [6 * ALONE_S] * 2)


def test_each_prompt_has_one_core_of_the_pool() -> None:
    assert ends_s(4, cores=2) == pytest.approx([2 * ALONE_S] * 4)
    assert ends_s(3, cores=4) == pytest.approx([ALONE_S] * 3)


def test_a_prompt_waits_for_others_where_the_pass_is_not_full() -> None:
    assert ends_s(1, cores=1, wait_ms=2.0) == pytest.approx([2e-3 + ALONE_S])
    assert ends_s(4, cores=1, wait_ms=2.0) == pytest.approx([4 * ALONE_S] * 4)


def test_a_pool_without_cores_is_an_error_that_names_the_key() -> None:
    with pytest.raises(
        HermesFlowError, match=r"cluster\.pools\.text\.cores: null, and h100_sxm has no figure"
    ):
        hf.compile(described(1, "serves: [tokenize_together]", "h100_sxm"))


def test_negative_times_are_refused_by_name() -> None:
    with pytest.raises(HermesFlowError, match=r"pipeline\.stages\.tokenize\.per_token_us"):
        hf.compile(
            hf.compose(
                [
                    "pipeline=llm",
                    "+cluster.pools.text={kind: batched, serves: [tokenize_together], cores: 1}",
                    "+hardware@cluster.pools.text.hardware=sapphire_rapids",
                    "+pipeline.stages.tokenize={kind: tokenize_together, per_token_us: -1}",
                ]
            )
        )
