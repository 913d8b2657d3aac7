"""The work that an op asks of its client, as one variant for each kind of work."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class EarlierPrompt:
    """An earlier prompt of the same request that a prompt begins with; with ``answer``, also the answer to it.

    It is that of the first of the ops ``sources`` that the request takes.
    """

    sources: tuple[int, ...]
    answer: bool = False


@dataclass(frozen=True, slots=True)
class PromptImages:
    """The images with which prompts begin, of which an engine encodes those that it does not have.

    ``counts`` has their number for each request; each is ``tokens`` long, and ``pass_ps`` is the time to encode so
    many of one prompt in a pass. A client keeps ``kept_tokens`` of images, and encodes up to ``step_tokens`` in a
    step.
    """

    counts: Ints
    tokens: int
    pass_ps: tuple[int, ...]
    kept_tokens: int
    step_tokens: int


@dataclass(frozen=True, slots=True)
class Generate:
    """Generating tokens of an answer on an LLM client; the prefill emits the first one.

    A prefill alone has an ``output`` of one token. The decode of such a prefill, on a pool of its own, has the same
    ``prompt`` and receives its KV. Of answers that are written side by side, ``branch`` 0 is the one that counts.
    ``written`` are the tokens before a pause, from which this op goes on; None: it begins the answer. ``images`` are
    those of the prompts that the engine encodes itself; None: it encodes none.
    """

    prompt: Ints
    output: Ints
    extends: EarlierPrompt | None = None
    branch: int = 0
    written: Ints | None = None
    images: PromptImages | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the user reads the answer: it is the first of several branches, or the only one."""
        return self.branch == 0


@dataclass(frozen=True, slots=True)
class Forward:
    """One forward pass of an LLM over a prompt; its only token (a verdict, a score) is no answer."""

    prompt: Ints
    extends: EarlierPrompt | None = None

    @property
    def output(self) -> Ints:
        """The one token of each pass."""
        return np.ones_like(self.prompt)


@dataclass(frozen=True, slots=True)
class CoreTime:
    """Nanoseconds of one core of a sequential client; ``tokens`` are the handled tokens."""

    service_ns: Ints
    tokens: Ints


@dataclass(frozen=True, slots=True)
class PassCost:
    """The time of one pass over a batch on a batched client, and its reads of the host's memory.

    Either by the number of tasks (``ns`` and ``bytes``, from 0 on), or a forward pass (``step``) over the tokens of
    all tasks, ``sequences`` of equal length each. With ``sequence_tokens`` a task has as many sequences of so many
    tokens as its tokens make up.
    """

    ns: tuple[int, ...] = ()
    bytes: tuple[int, ...] = ()
    step: StepCost | None = None
    sequences: int = 1
    sequence_tokens: int | None = None
    provenance: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Passes:
    """A place in a pass of a batched client; ``tokens`` are the tokens in the pass, 0 if it has vectors.

    ``known_ns`` is the measured time of a task alone in its pass, UNKNOWN where there is none.
    """

    cost: PassCost
    tokens: Ints
    known_ns: Ints | None = None


Work: TypeAlias = Generate | Forward | CoreTime | Passes | KVLookup  # the last is asked of a memory client
