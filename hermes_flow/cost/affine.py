"""The cost model ``affine``: a step time that is linear in its tokens, for tests and quick fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hermes_flow.config.quantities import Microseconds, PositiveMicroseconds
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_US


@cost_models.register("affine")
@dataclass(frozen=True, slots=True)
class Affine:
    """fixed + per_token·(scheduled tokens) + per_context·(Σ computed tokens of the scheduled sequences).

    Nothing is added to it: no engine overhead, no ingest time, no hops between pipeline ranks, no draft model. It is
    the step of the whole client, whatever its tensor-parallel devices; each of p pipeline ranks takes one p-th of
    every figure. Each rank of data-parallel attention takes it for its own sequences, and the step is that of the
    slowest rank. With speculation a decoding sequence has all the tokens that are verified.
    """

    fixed_us: PositiveMicroseconds
    """The time of every step."""
    per_token_us: Microseconds = 0.0
    """The time that each scheduled token adds."""
    per_context_us: Microseconds = 0.0
    """The time that each token computed before adds, for all scheduled sequences."""

    of_hardware: ClassVar[bool] = False  # so there is nobody whose power it could be

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the line as tables, rounded to picoseconds."""
        ranks = deployment.pipeline_parallel
        tokens = np.arange(deployment.max_tokens + 1, dtype=np.float64)
        line = (self.fixed_us + self.per_token_us * tokens) * PS_PER_US
        steps = np.rint(line / ranks).astype(np.int64)
        steps[0] = 0
        context_ps = round(self.per_context_us * PS_PER_US / ranks)
        zeros = [0] * (deployment.max_sequences + 1)
        share = f"; 1/{ranks} of it on each pipeline rank" if ranks > 1 else ""
        return StepCost(
            tokens_ps=steps.tolist(),
            sequences_ps=zeros,
            decode_attention_ps=zeros,
            context_ps=context_ps,
            prefill_context_ps=context_ps,
            provenance=(
                f"affine: {self.fixed_us:g} µs + {self.per_token_us:g} µs a token "
                f"+ {self.per_context_us:g} µs a computed token{share}",
            ),
            tokens_per_decode=deployment.tokens_per_decode,
        ).in_lockstep(deployment.data_parallel)

    def hop(self, deployment: Deployment) -> Hop:
        """Return zero: the affine cost contains everything."""
        return Hop()
