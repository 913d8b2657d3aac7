"""The registry of routing policies and what one must offer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hermes_flow.config.registry import Registry


class Routable(Protocol):
    """A client as routing sees it. True output lengths are not to be had."""

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""

    def queued_tokens(self, now_ns: int) -> int:
        """Work known to be still processed, in the client's own unit (tokens, or core time)."""


class Router(Protocol):
    """Chooses a client for each task; made anew for every pool and run."""

    def __init__(self, clients: Sequence[Routable], rng: np.random.Generator) -> None:
        """Route among ``clients``; ``rng`` is the pool's own random stream."""

    def choose(self, now_ns: int) -> int:
        """Return the index of the client that serves the task that is ready now."""


routing_policies: Registry[Router] = Registry("routing policy", tag="routing")
