"""The interface between a client that decides its steps one by one and the scheduler that decides them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from typing import Any, ClassVar, Protocol

from hermes_flow.program.quick_dataclass import dataclass


class DecidedSequence:
    """One request in such a scheduler.

    ``limit`` is the number of tokens that it may write, ``output`` the number that it writes. ``out`` tokens are
    delivered; ``computed`` tokens have KV. ``retractions`` counts how often it was thrown out and lost its token in
    flight; ``delivered_ps`` is when its last token was delivered, ``arrival_ps`` when the scheduler saw it.
    """

    __slots__ = (
        "arrival_ps",
        "computed",
        "delivered_ps",
        "finished",
        "in_flight",
        "limit",
        "out",
        "output",
        "prompt",
        "retractions",
        "task",
    )

    def __init__(self, task: int, prompt: int, output: int, limit: int) -> None:
        self.task = task
        self.arrival_ps = 0
        self.prompt = prompt
        self.output = output
        self.limit = limit
        self.out = 0
        self.computed = 0
        self.finished = False
        self.retractions = 0
        self.delivered_ps = -1
        self.in_flight = False  # the step that runs gives it a token

    @property
    def length(self) -> int:
        """Tokens of its prompt and of its answer so far."""
        return self.prompt + self.out

    @property
    def prompt_done(self) -> int:
        """Tokens of its prompt that were computed: all, once it has a token, also where its KV is lost since."""
        return self.prompt if self.out else min(self.computed, self.prompt)


@dataclass(slots=True)
class Prefill:
    """A part of a prompt in a step: ``tokens`` after ``context`` computed ones; ``last`` completes the prompt."""

    sequence: Any
    tokens: int
    context: int
    last: bool

    @property
    def end(self) -> int:
        """Where the computed part of the prompt ends after the step."""
        return self.context + self.tokens


@dataclass(slots=True)
class Step:
    """One forward pass: parts of prompts, and sequences that decode over ``context`` computed tokens in all.

    ``retractions`` has how often each decoding sequence had been thrown out, to tell whether it still waits for the
    token; a decode of a sequence that has finished meanwhile is in vain. ``parts`` are the steps of the
    ranks of which it consists, with data-parallel attention.
    """

    prefills: list[Prefill]
    decodes: list[Any]
    context: int
    retracted: list[Any] = field(default_factory=list)
    retractions: list[int] = field(default_factory=list)
    end_ps: int = 0
    parts: Sequence[Step] = ()


class StepScheduler(Protocol):
    """What a client asks of its scheduler.

    With overlap ``decide`` is called as the step before begins, and the results of that one come (``prefilled``,
    ``ended``) after the decision; without it they have come before.
    """

    cancels: ClassVar[bool]
    """Whether a running request that is withdrawn ends with the next result; else with its own next token."""

    context: int
    """Computed tokens of the running sequences, as ``equal_decodes`` has found them."""

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""

    @property
    def running(self) -> Sequence[Any]:
        """The sequences that decode."""

    @property
    def peak_blocks(self) -> int:
        """The most blocks in use so far."""

    @property
    def kv_use(self) -> float:
        """The share of its memory that sequences hold."""

    def enqueue(self, sequence: Any) -> None:
        """Take in a request that has arrived."""

    def decide(self) -> Step | None:
        """Return the next step and take its memory; None if nothing can run now."""

    def rest(self) -> bool:
        """Note that no step runs, and that none was decided; return whether to decide again at once."""

    def prefilled(self, prefill: Prefill) -> None:
        """Take note that a prompt is complete and its sequence goes on."""

    def ended(self, sequence: Any) -> None:
        """Free the memory of a sequence whose last token is delivered."""

    def withdraw(self, sequence: Any) -> bool:
        """Take note that nobody waits for a request; return whether it is gone at once, as one that waits is."""

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps of the whole batch, for all that is known now.

        A request that arrives while ``admits`` ends the stretch. 0 where the next decision may be of another kind.
        """

    def admits(self) -> bool:
        """Return whether the next decision tries a request that arrives now."""

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results.

        Under overlap the results are those of the steps one before.
        """

    def last_decode(self, end_ps: int) -> Step:
        """Return the last step of a stretch, which ends at ``end_ps`` with its results not yet delivered."""
