"""Random commands and traces keep the promises of docs/trust.md; ``nox -s fuzz`` runs many more of them."""

from __future__ import annotations

import pytest
from tries import tries

import hermes_flow as hf
from benchmarks.fuzz.case import attempt, case, smallest


@pytest.mark.parametrize("block", range(6))
def test_random_commands_and_traces_run_or_are_refused_in_our_words(block: int) -> None:
    each = tries(4, of=50)
    broken = [outcome for seed in range(block * 50, block * 50 + each) if (outcome := case(seed)).broken]
    assert not broken


@pytest.mark.parametrize("override", ["=", "=b", "~"])
def test_an_override_without_a_key_says_what_is_expected(override: str) -> None:
    """The fuzz found these: the message was Hydra's own."""
    with pytest.raises(hf.HermesFlowError, match="an override has no key; expected key=value"):
        hf.compose([override])


def test_a_message_without_a_key_is_found_and_made_small() -> None:
    outcome = attempt(["workload.requests=3"])
    assert outcome.ran
    assert outcome.broken is None
    refused = attempt(["workload.requests=3", "cluster.pools.llm.count=0"])
    assert not refused.ran
    assert refused.broken is None
    assert smallest(("workload.requests=3", "cluster.pools.llm.count=0")) == (
        "workload.requests=3",
        "cluster.pools.llm.count=0",
    )
