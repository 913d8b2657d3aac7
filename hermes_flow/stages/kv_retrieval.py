"""The stage ``kv_retrieval`` looks up the KV of a past context, so that the next prefill skips it."""

from __future__ import annotations

import copy
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.quantities import Exponent, Many, PositiveTokens, Share
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import power
from hermes_flow.program.units import Ints
from hermes_flow.stages.kind import RequestSizes, Role, stage_kinds
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.shares import drawn_by_share


@dataclass(frozen=True, slots=True)
class DrawnContexts:
    """The drawn contexts of the requests: tokens, which context (None: all different), and a number in [0, 1).

    ``all_tokens`` are the tokens of every context that requests share, asked for or not (None: they share none).
    """

    tokens: Ints
    key: Ints | None
    chance: NDArray[np.float64]
    all_tokens: Ints | None = None


@stage_kinds.register("kv_retrieval")
@dataclass(frozen=True, slots=True)
class KVRetrieval:
    """``context_tokens`` (a number or a distribution) come before the prompt of the next prefill.

    Null, with ``per_session``: the context is what the session has said so far, which its prompts hold anyway.

    One of three keys says whether a context is found. ``hits``: by tier, the probability that it has what all
    tiers before it have not; drawn for each request, or with ``expected`` its expectation for all. ``contexts``: so
    many are shared by all requests, the n-th one as likely as 1/n^skew; ``per_session``: each session has its own.
    With these two, it is found where the run has kept it.

    With ``overlap`` the request joins the prefill's queue at once, and can be scheduled when its context is there;
    without, it joins then.
    """

    client: ClassVar[Literal["llm", "sequential", "batched", "memory"]] = "memory"
    role: ClassVar[Role] = "context"
    context_tokens: dict[str, Any] | PositiveTokens | None = None
    hits: dict[str, Share] | None = None
    expected: bool = False
    contexts: Many | None = None
    skew: Exponent = 0.0
    """The n-th context is as likely as 1/n^skew; 0 makes all alike."""
    per_session: bool = False
    overlap: bool = False

    def __post_init__(self) -> None:
        if self.context_tokens is not None:
            parse_lengths(self.context_tokens, "context_tokens")
        elif not self.per_session:
            raise ConfigError("context_tokens", "missing; expected a number of tokens or a distribution")
        ways = {"hits": self.hits is not None, "contexts": self.contexts is not None}
        given = [name for name, is_given in (*ways.items(), ("per_session", self.per_session)) if is_given]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ConfigError("hits", f"{found} given; expected one of hits, contexts and per_session")
        if self.expected and self.hits is None:
            raise ConfigError("expected", "true; an expectation needs probabilities in 'hits'")
        if self.skew and self.contexts is None:
            raise ConfigError("skew", f"{self.skew:g}, but there are no shared contexts; expected 0")

    @property
    def keeps(self) -> bool:
        """Whether contexts are found in tiers to which the run has written them."""
        return self.hits is None

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the context's tokens."""
        return self.draw(sizes).tokens

    def adds(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that the context adds to the prompt."""
        drawn = self.draw(sizes).tokens
        return np.zeros_like(drawn) if self.context_tokens is None else drawn

    def draw(self, sizes: RequestSizes) -> DrawnContexts:
        """Return the contexts of all requests; every call returns the same. Raises ConfigError."""
        rng = copy.deepcopy(sizes.rng)
        count = len(sizes.input_tokens)
        key: Ints | None = None
        if self.contexts is not None:
            shares = power(np.arange(1, self.contexts + 1), -self.skew)
            key = drawn_by_share(shares.tolist(), count, rng)
        elif self.per_session:
            if sizes.session is None:
                raise ConfigError(
                    "per_session", "true, but the requests of this workload belong to no sessions"
                )
            key = np.unique(sizes.session, return_inverse=True)[1].astype(np.int64)
        chance = rng.random(count)
        if self.context_tokens is None:
            if sizes.said_tokens is None:
                problem = (
                    "null; the earlier turns of a session exist with workload=sessions only: expected tokens"
                )
                raise ConfigError("context_tokens", problem)
            return DrawnContexts(sizes.said_tokens, key, chance)
        lengths = parse_lengths(self.context_tokens, "context_tokens")
        if key is None:
            return DrawnContexts(tokens(lengths, count, rng, "context_tokens"), key, chance)
        known = int(key.max(initial=0)) + 1 if self.contexts is None else self.contexts
        by_key = tokens(lengths, known, rng, "context_tokens")
        return DrawnContexts(by_key[key], key, chance, None if self.contexts is None else by_key)
