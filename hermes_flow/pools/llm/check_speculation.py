"""Checks speculative decoding: what drafts, and how many of the drafted tokens are accepted."""

from __future__ import annotations

from itertools import pairwise

from hermes_flow.config.schema import Speculative
from hermes_flow.config.shape import dense_layers
from hermes_flow.pools.llm.batching import plans_gangs, policy_name
from hermes_flow.pools.llm.schema import LLMPool


def check_speculation(pool: LLMPool, key: str, problems: list[str], sound: bool) -> None:
    """Append the problems of the pool's speculative decoding; ``sound`` is False if models have wrong numbers."""
    if pool.drafter is None:
        _check_unused(pool.speculative, f"{key}.speculative", problems)
        return
    draft, what = pool.speculative.draft, "draft" if pool.speculative.head is None else "head"
    key = f"{key}.speculative"
    if plans_gangs(pool.batching):
        gang = policy_name(pool.batching)
        problems.append(f"{key}.{what}: a gang of {gang!r} drafts nothing; expected null")
    if pool.pipeline_parallel > 1:
        problems.append(f"{key}.{what}: drafting does not go with pipeline_parallel; expected null")
    if draft is None:
        _check_head(pool, key, problems)
    elif pool.speculative.head is not None:
        problems.append(
            f"{key}.head: {pool.speculative.head}, and draft is {draft.name}; expected one of them"
        )
    elif draft.kind != "decoder":
        problems.append(f"{key}.draft: {draft.name} is an {draft.kind}; a draft model must be a decoder")
    elif sound and draft.vocab_size != pool.model.vocab_size:
        problems.append(
            f"{key}.draft: {draft.name} has a vocabulary of {draft.vocab_size:,} tokens, {pool.model.name} of "
            f"{pool.model.vocab_size:,}; a draft model must have the same"
        )
    _check_acceptance(pool.speculative, key, problems)


def _check_unused(speculative: Speculative, key: str, problems: list[str]) -> None:
    problems += [
        f"{key}.{name}: given, but nothing drafts; expected head or draft with it"
        for name in ("acceptance_length", "acceptance_by_position", "head_vocabulary")
        if getattr(speculative, name)
    ]


def _check_head(pool: LLMPool, key: str, problems: list[str]) -> None:
    speculative, model = pool.speculative, pool.model
    if speculative.head == "mtp" and model.experts is not None and pool.data_parallel > 1:
        problems.append(
            f"{key}.head: mtp with the experts of {model.name} is not modelled over data-parallel ranks; expected "
            "null, or data_parallel=1"
        )
    if speculative.head != "mtp" and model.experts is not None and not dense_layers(model):
        problems.append(
            f"{key}.head: {speculative.head}, but {model.name} has no dense MLP that says how wide the head's is; "
            "expected mtp, or the head as a model in draft"
        )
    if speculative.head_vocabulary is None:
        return
    if speculative.head != "eagle3":
        problems.append(f"{key}.head_vocabulary: a head of {speculative.head} has its model's; expected null")
    elif speculative.head_vocabulary > model.vocab_size:
        problems.append(
            f"{key}.head_vocabulary: {speculative.head_vocabulary:,} is above the {model.vocab_size:,} tokens of "
            f"{model.name}"
        )


def _check_acceptance(speculative: Speculative, key: str, problems: list[str]) -> None:
    shares, length, tokens = (
        speculative.acceptance_by_position,
        speculative.acceptance_length,
        speculative.tokens,
    )
    given = [
        name
        for name, there in (
            ("acceptance", speculative.acceptance is not None),
            ("acceptance_length", length is not None),
            ("acceptance_by_position", bool(shares)),
        )
        if there
    ]
    if len(given) > 1:
        problems.append(f"{key}: {' and '.join(given)} say the same thing; expected one of them")
    if length is not None and length > tokens + 1:
        problems.append(
            f"{key}.acceptance_length: {length:g} is above {tokens + 1}, which {tokens} drafted tokens and the "
            "model's own one give"
        )
    if shares and len(shares) != tokens:
        problems.append(f"{key}.acceptance_by_position: has {len(shares)} shares; expected {tokens} (tokens)")
    if any(later > earlier for earlier, later in pairwise(shares)):
        problems.append(
            f"{key}.acceptance_by_position: a share is above the one before it; a token is accepted only after those "
            "before it"
        )
