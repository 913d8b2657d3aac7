"""Speculative decoding: the time that a draft model adds to a step, and the tokens that a step gives."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

from hermes_flow.config.schema import Drafting, Speculative
from hermes_flow.config.speculative import DEFAULT_ACCEPTANCE
from hermes_flow.program.same_bits import whole_power
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_US as _PS_PER_US


def expected_tokens(speculative: Speculative) -> Fraction:
    """Return the expected tokens of one sequence in one step, to a denominator of 10,000.

    That is the acceptance length where it is given, or 1 and the shares of all positions. Else (1 − a^(k+1))/(1 − a):
    k tokens are drafted and verified together; each is accepted with probability a until the first that is not,
    and the verification gives one more. Leviathan et al. 2023, arXiv 2211.17192, equation 1.
    """
    tokens, acceptance = speculative.tokens, speculative.acceptance
    if speculative.acceptance_length is not None:
        expected = speculative.acceptance_length
    elif speculative.acceptance_by_position:
        expected = 1.0 + math.fsum(speculative.acceptance_by_position)
    else:
        acceptance = DEFAULT_ACCEPTANCE if acceptance is None else acceptance
        expected = (1.0 - whole_power(acceptance, tokens + 1)) / (1.0 - acceptance)
    return Fraction(expected).limit_denominator(10_000)


def with_draft(verification: StepCost, draft: StepCost, tokens: int, host: Drafting | None) -> StepCost:
    """Return a step of both models on the same devices.

    ``host`` is what the host takes: its time in each step, and the least time of a pass of the draft, whose launches
    overlap with the pass before; a step of prompts alone then drafts for one sequence. ``verification`` is the
    target's step over ``tokens`` + 1 tokens a decode. Before it the draft decodes ``tokens`` times, one token of each
    sequence a pass, and it prefills what the target prefills: a chunk's tokens join a pass, and cost what they add to
    it, per token as in the longest step; its weights are not read once more for them. That the context grows within
    the passes is neglected.
    """
    passes = [tokens * pass_ps for pass_ps in draft.decode_ps]
    launch_ps = verification.prefill_launch_ps + draft.prefill_launch_ps
    if host is not None:
        least, step_ps = round(host.pass_us * _PS_PER_US), round(host.step_us * _PS_PER_US)
        passes = [step_ps + tokens * max(pass_ps, least) for pass_ps in draft.decode_ps]
        passes[0] = 0
    longest = len(draft.tokens_ps) - 1
    marginal = (draft.tokens_ps[longest] - draft.tokens_ps[1]) / max(1, longest - 1)
    attention = [own + drafted for own, drafted in zip(verification.decode_attention_ps, passes, strict=True)]
    beside = []
    if host is not None and len(passes) > 1:
        # Decodes in a step with a prompt draft together with it.
        launch_ps += passes[1]
        beside = [0, *(each - passes[1] for each in attention[1:])]
    return replace(
        verification,
        decode_attention_ps=attention,
        mixed_attention_ps=beside,
        mixed_context_ps=(verification.context_ps + tokens * draft.context_ps) if beside else 0,
        context_ps=verification.context_ps + tokens * draft.context_ps,
        prefill_launch_ps=launch_ps,
        prefill_pair_ps=verification.prefill_pair_ps + draft.prefill_pair_ps,
        prefill_token_ps=round(marginal),
        scans=verification.scans + draft.scans,
    )
