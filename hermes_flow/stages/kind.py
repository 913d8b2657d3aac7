"""The registry of stage kinds, and their interface to the compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from hermes_flow.config.registry import Registry
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.program.work import PassCost
from hermes_flow.stages.stage_options import StageOptions

if TYPE_CHECKING:
    from hermes_flow.cost.passes import Site

# source: OpenAI's documentation of tokens: about four characters of English text each, of one byte
BYTES_PER_TOKEN = 4


# What a stage does for an answer: its prompt or a context for it is computed or fetched, it is written, scored or
# watched, or its text or its images are encoded. A kind without a role only takes time and moves data.
Role = Literal["prompt", "context", "answer", "score", "guard", "encode", "images", "none"]


@dataclass(frozen=True, slots=True)
class RequestSizes:
    """The tokens of every request, from the workload, and of the answer before the stage, if any.

    ``rng`` is the stage's own random stream. ``prompt_tokens`` are those of the prompt that was answered; without an
    answer before the stage, of the request's. ``session`` is whose turn each request is, ``said_tokens`` what was
    said in it before, as far as the workload tells. ``images`` are those of each request; None: none has any.
    """

    input_tokens: Ints
    output_tokens: Ints
    answer_tokens: Ints
    rng: np.random.Generator
    prompt_tokens: Ints | None = None
    session: Ints | None = None
    said_tokens: Ints | None = None
    images: Ints | None = None


class StageKind(Protocol):
    """The parameters of one kind of stage.

    A kind may say its ``role``; the compiler asks for roles, never for names of kinds.
    """

    @property
    def client(self) -> Literal["llm", "sequential", "batched", "memory"]:
        """The kind of pool that can serve it."""

    def tokens(self, sizes: RequestSizes) -> Ints:
        """Return the tokens that this stage handles, per request."""


class SequentialStage(StageKind, Protocol):
    """A stage that occupies one core of a host for a time known from the request's sizes."""

    def service_ns(self, sizes: RequestSizes) -> Ints:
        """Return the core time per request, in nanoseconds."""


class BatchedStage(StageKind, Protocol):
    """A stage that a client serves in passes over several requests."""

    def passes(self, site: Site) -> PassCost:
        """Return the cost of a pass at ``site``; raises ConfigError if a figure is missing."""


class Receiver(Protocol):
    """A later stage that something is sent to."""

    @property
    def kind(self) -> str:
        """The name of its kind."""

    @property
    def role(self) -> Role:
        """What it does for an answer."""

    @property
    def params(self) -> StageKind:
        """The parameters of its kind."""

    @property
    def options(self) -> StageOptions:
        """The keys that every stage may have."""


@runtime_checkable
class SendingStage(Protocol):
    """A stage that leaves data for later stages; the data moves if they are on other machines."""

    def sends(self, to: Receiver, tokens: Ints) -> Ints | None:
        """Return the bytes for the stage ``to``, per request; None if it takes no data from this one.

        ``tokens`` are those that it handles, or those of its answer.
        """


def role_of(params: StageKind) -> Role:
    """Return what a stage does for an answer; a kind that does not say so has no part in one."""
    role: Role = getattr(params, "role", "none")
    return role


stage_kinds: Registry[StageKind] = Registry(
    "stage kind", tag="kind", package=__package__, methods=("client",)
)
