"""The stage ``tokenize_together`` turns the texts of several requests into token ids in one pass over all of them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from hermes_flow.config.quantities import Microseconds
from hermes_flow.cost.passes import Site
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import mean
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.core_time import linear_ns
from hermes_flow.stages.kind import RequestSizes, stage_kinds


@stage_kinds.register("tokenize_together")
@dataclass(frozen=True, slots=True)
class TokenizeTogether:
    """A host gathers prompts (``max_batch``, ``wait_ms`` of its pool) and hands all on when the last one is done.

    A prompt takes one core for fixed_us + per_token_us · its tokens, and counts with the mean of all prompts. The
    pass over n prompts takes n / cores times as long, and as long as one prompt at least. Defaults are those of
    ``tokenize``. vLLM up to June 2026 has one such core, ``max_batch`` 32 and ``wait_ms`` 2.
    """

    client: ClassVar[Literal["llm", "sequential", "batched"]] = "batched"
    fixed_us: Microseconds = 9.0
    """The time of one core for every request."""
    per_token_us: Microseconds = 1.55
    """The time of one core that each token adds."""

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the prompt's tokens."""
        return sizes.input_tokens

    def passes(self, site: Site) -> PassCost:
        """Return the time of passes over so many prompts, in ns; raises ConfigError where the pool has no cores."""
        pool = site.pool
        cores = pool.cores or pool.hardware.cores
        if cores is None:
            raise ConfigError(
                f"{site.key}.cores", f"null, and {pool.hardware.name} has no figure for it either"
            )
        alone_ns = mean(linear_ns(self.fixed_us, self.per_token_us, site.tokens)) if len(site.tokens) else 0.0
        prompts = np.arange(pool.max_batch + 1)
        ns = np.rint(alone_ns * np.where(prompts > 0, np.maximum(1.0, prompts / cores), 0.0)).astype(np.int64)
        told = (
            f"tokenizing: {self.fixed_us:g} µs + {self.per_token_us:g} µs a token, on {cores} cores at once"
        )
        return PassCost(ns=tuple(ns.tolist()), bytes=(0,) * len(prompts), provenance=(told,))
