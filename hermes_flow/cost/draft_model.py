"""Speculative decoding: the time that a draft model adds to a step, and the tokens that a step gives."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hermes_flow.config.schema import Speculative
from hermes_flow.program.step_cost import StepCost


def expected_tokens(speculative: Speculative) -> Fraction:
    """Return the expected tokens of one sequence in one step: (1 − a^(k+1))/(1 − a), to a denominator of 10,000.

    k tokens are drafted and verified together; each is accepted with probability a until the first that is not,
    and the verification gives one more. Leviathan et al. 2023, arXiv 2211.17192, equation 1.
    """
    tokens, acceptance = speculative.tokens, speculative.acceptance
    expected = (1.0 - acceptance ** (tokens + 1)) / (1.0 - acceptance)
    return Fraction(expected).limit_denominator(10_000)


def with_draft(verification: StepCost, draft: StepCost, tokens: int) -> StepCost:
    """Return a step of both models on the same devices.

    ``verification`` is the target's step over ``tokens`` + 1 tokens a decode. Before it the draft decodes ``tokens``
    times, one token of each sequence a pass, and it prefills what the target prefills: a chunk's tokens join a pass,
    and cost what they add to it, per token as in the longest step; its weights are not read once more for them. That
    the context grows within the passes is neglected.
    """
    passes = [tokens * pass_ps for pass_ps in draft.decode_ps]
    longest = len(draft.tokens_ps) - 1
    marginal = (draft.tokens_ps[longest] - draft.tokens_ps[1]) / max(1, longest - 1)
    return replace(
        verification,
        decode_attention_ps=[
            own + drafted for own, drafted in zip(verification.decode_attention_ps, passes, strict=True)
        ],
        context_ps=verification.context_ps + tokens * draft.context_ps,
        prefill_launch_ps=verification.prefill_launch_ps + draft.prefill_launch_ps,
        prefill_pair_ps=verification.prefill_pair_ps + draft.prefill_pair_ps,
        prefill_token_ps=round(marginal),
    )
