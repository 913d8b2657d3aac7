"""The registry of stage kinds, and what each must offer to the compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import numpy as np

from hermes_flow.compiler.program import Ints
from hermes_flow.config.registry import Registry


@dataclass(frozen=True, slots=True)
class RequestSizes:
    """Tokens of every request: as the workload gives them, and of the answer that came before the stage, if any.

    ``rng`` is the stage's own random stream.
    """

    input_tokens: Ints
    output_tokens: Ints
    answer_tokens: Ints
    rng: np.random.Generator


class StageKind(Protocol):
    """One kind's parameters. ``client`` is the kind of pool that can serve it."""

    client: ClassVar[Literal["llm", "sequential"]]

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that this stage handles, per request."""


class SequentialStage(StageKind, Protocol):
    """A stage that occupies one core of a host for a time known from the request's sizes."""

    def service_ns(self, sizes: RequestSizes) -> Ints:
        """Return the core time per request, in nanoseconds."""


stage_kinds: Registry[StageKind] = Registry("stage kind", tag="kind")
