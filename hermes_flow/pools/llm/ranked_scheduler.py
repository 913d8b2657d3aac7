"""The schedulers of several ranks with data-parallel attention, which decide at the same instants.

The ranks share the experts of a mixture, so that a step needs all of them. Each rank has seats, a token budget, KV
and running requests of its own. A rank without work takes part with a dummy batch, which costs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

from hermes_flow.pools.llm.decided_steps import Prefill, Step, StepScheduler
from hermes_flow.pools.llm.rank_budget import REPORT_PS, RankBudget, RankTurns
from hermes_flow.program.units import NEVER


class RankedScheduler:
    """One ``StepScheduler`` made of those of the ranks, to which SGLang's controller gives requests.

    ``turns`` choose the rank of each request. By default the ranks take requests in turns; with ``by_queue`` the
    controller learns every 100 ms how many requests each rank has, next with the first decision at or after
    ``report_ps``. Ranks that send KV to other clients, or take it over, are ``SendingScheduler`` or
    ``ReceivingScheduler``, and so is this one then.
    ``decode_paces`` has the number of running sequences and their computed tokens of each rank that decodes, as
    ``equal_decodes`` has found them.
    """

    cancels: ClassVar[bool] = False

    __slots__ = (
        "_budget",
        "_busy",
        "_in_hand",
        "_parts",
        "_rank_of",
        "_sides",
        "context",
        "ranks",
        "report_ps",
    )

    def __init__(
        self, ranks: Sequence[StepScheduler], turns: RankTurns | None = None, *, by_queue: bool = False
    ) -> None:
        self.ranks = list(ranks)
        self._sides: list[Any] = self.ranks  # as those that send KV, or take it over
        self.context = 0
        self._budget = turns or RankBudget(len(ranks))
        self.report_ps = REPORT_PS if by_queue else NEVER
        self._rank_of: dict[int, int] = {}  # by task
        self._in_hand = [0] * len(ranks)  # requests of each rank that are not over
        self._busy: list[StepScheduler] = []  # those with work, in a stretch of equal steps
        self._parts: list[Step | None] = [None] * len(ranks)  # of the step that was decided last

    @property
    def granted(self) -> list[Any]:
        """Those that got memory in the last decision, where the ranks take over KV."""
        return [one for rank in self._sides for one in rank.granted]

    @property
    def joined(self) -> list[Any]:
        """Those that got their first token in the last decision, where the ranks take over KV."""
        return [one for rank in self._sides for one in rank.joined]

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return all(rank.idle for rank in self.ranks)

    @property
    def running(self) -> list[Any]:
        """The sequences that decode."""
        return [one for rank in self.ranks for one in rank.running]

    @property
    def peak_blocks(self) -> int:
        """The most blocks in use so far on the fullest rank, for all ranks."""
        return len(self.ranks) * max(rank.peak_blocks for rank in self.ranks)

    @property
    def kv_use(self) -> float:
        """The share of the memory of all ranks that sequences hold."""
        return math.fsum([rank.kv_use for rank in self.ranks]) / len(self.ranks)

    def enqueue(self, sequence: Any) -> None:
        """Give a request that has arrived to a rank."""
        place = self._budget.choose(sequence.task)
        self._assign(sequence, place)
        self.ranks[place].enqueue(sequence)

    def _assign(self, sequence: Any, place: int) -> None:
        self._rank_of[sequence.task] = place
        self._in_hand[place] += 1

    def report(self, now_ps: int) -> None:
        """Let the controller learn how many requests the ranks have now."""
        self._budget.report(self._in_hand)
        self.report_ps = (now_ps // REPORT_PS + 1) * REPORT_PS

    def decide(self) -> Step | None:
        """Return the next step of all ranks and take its memory; None if no rank has anything to run."""
        return self._join([rank.decide() for rank in self.ranks])

    def rest(self) -> bool:
        """Note that no step runs, and that none was decided; return whether to decide again at once."""
        again = [rank.rest() for rank in self.ranks]
        return any(again)

    def prefilled(self, prefill: Prefill) -> None:
        """Take note that a prompt is complete and its sequence goes on."""
        self.ranks[self._rank_of[prefill.sequence.task]].prefilled(prefill)

    def hand_over(self, sequence: Any) -> None:
        """Note that a prompt is complete and its token delivered; its KV stays on its rank until ``ended``."""
        self._sides[self._rank_of[sequence.task]].hand_over(sequence)

    def arrived(self, sequence: Any) -> None:
        """Take note that the KV of a request is here, on the rank that has its memory."""
        self._sides[self._rank_of[sequence.task]].arrived(sequence)

    def ended(self, sequence: Any) -> None:
        """Free the memory of a sequence whose last token is delivered."""
        place = self._rank_of.pop(sequence.task)
        self._in_hand[place] -= 1
        self.ranks[place].ended(sequence)

    def withdraw(self, sequence: Any) -> bool:
        """Take note that nobody waits for a request; return whether it is gone at once, as one that waits is."""
        place = self._rank_of[sequence.task]
        gone = self.ranks[place].withdraw(sequence)
        if gone:
            del self._rank_of[sequence.task]
            self._in_hand[place] -= 1
        return gone

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""
        return sum([rank.fresh() for rank in self.ranks])

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""
        return sum([rank.missing_tokens() for rank in self.ranks])

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps on every rank that has work."""
        parts = zip(self.ranks, self._parts, strict=True)
        self._busy = [rank for rank, part in parts if part is not None or not rank.idle]
        self.context = 0
        steps = 0
        for rank in self._busy:
            of_rank = rank.equal_decodes()
            if not of_rank:
                return 0
            steps = min(steps, of_rank) if steps else of_rank
            self.context += rank.context
        return steps

    @property
    def decode_paces(self) -> list[tuple[int, int]]:
        """Decoding sequences and their computed tokens, by rank that has any."""
        return [(len(rank.running), rank.context) for rank in self._busy]

    def admits(self) -> bool:
        """Return whether the next decision tries a request that arrives now."""
        return any(rank.admits() for rank in self.ranks)

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results."""
        for rank in self._busy:
            rank.decode_equally(steps)
        self.context = sum([rank.context for rank in self._busy])

    def last_decode(self, end_ps: int) -> Step:
        """Return the last step of a stretch, which ends at ``end_ps`` with its results not yet delivered."""
        busy = {id(rank) for rank in self._busy}  # ranks may be a thousand
        step = self._join([rank.last_decode(end_ps) if id(rank) in busy else None for rank in self.ranks])
        assert step is not None
        step.end_ps = end_ps
        return step

    def _join(self, parts: list[Step | None]) -> Step | None:
        """Return the step that consists of those of the ranks; None where no rank has one."""
        self._parts = parts
        steps = [part for part in parts if part is not None]
        if not steps:
            return None
        return Step(
            [prefill for part in steps for prefill in part.prefills],
            [sequence for part in steps for sequence in part.decodes],
            sum([part.context for part in steps]),
            [sequence for part in steps for sequence in part.retracted],
            [count for part in steps for count in part.retractions],
            parts=steps,
        )
