"""The power of clients in watts, and the energy of a forward pass in the form of its StepCost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepEnergy:
    """The energy of one LLM client's steps, all its devices together.

    At rest it draws ``idle_w``; while it works ``active_w``, and for ``standby_s`` after that. On top of it a step
    that schedules ``decodes`` decoding sequences over ``decode_context`` computed tokens, and prefill chunks
    (chunk, context)…, takes the joules

        tokens_j[decodes·tokens_per_decode + Σ chunk] + decodes_j[decodes] + context_j·decode_context
        + pair_j·Σ chunk·(context + chunk/2) + chunk_token_j·Σ chunk

    The tables have the lengths of the StepCost's, for the tokens and sequences of all ranks: they are arrays of C
    doubles, because those of many ranks are long. All of it is affine in sums that a run keeps, so that a run of
    steps has a closed form.
    """

    idle_w: float
    active_w: float
    tokens_j: Sequence[float]
    decodes_j: Sequence[float]
    context_j: float
    pair_j: float
    chunk_token_j: float = 0.0
    tokens_per_decode: int = 1
    standby_s: float = 0.0

    def step_joules(
        self, prefills: list[tuple[int, int]], decodes: int, decode_context: int, seconds: float
    ) -> float:
        """The joules of one step that takes ``seconds``, term by term: the reference for every faster path."""
        chunks = sum(chunk for chunk, _ in prefills)
        joules = self.active_w * seconds + self.tokens_j[decodes * self.tokens_per_decode + chunks]
        if decodes:
            joules += self.decodes_j[decodes] + self.context_j * decode_context
        pairs = math.fsum(chunk * (past + 0.5 * chunk) for chunk, past in prefills)
        return joules + self.pair_j * pairs + self.chunk_token_j * chunks


@dataclass(frozen=True, slots=True)
class BusyPower:
    """The power of one client of another kind: linear between ``idle_w`` when idle and ``busy_w`` when fully busy.

    With ``by_pass`` the tasks of one pass, which begin at once, have equal parts of what it draws.
    """

    idle_w: float
    busy_w: float
    by_pass: bool = False
