"""TensorRT-LLM's schedulers of several ranks with attention data parallelism, which share one queue.

Before each decision, requests go from the queue to the ranks while these have seats: the longest prompt first, each
to the rank whose active requests have the fewest prompt tokens, among the ranks with less than their equal share of
the requests. No rank takes a step while one that has active requests can run none of them. Where KV comes from
other clients, requests that wait for memory or for their KV have seats, but do not stop the other ranks.

With ``enable_balance`` of its attention_dp_config, prompts wait until every rank can run one and has a seat for it:
for at most ``timeout_iters`` steps, and where every rank has one for ``batching_wait_iters`` more. They do not wait
where a rank has active requests and none of them decodes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Any, ClassVar

from hermes_flow.pools.llm.decided_steps import Step
from hermes_flow.pools.llm.ranked_scheduler import RankedScheduler
from hermes_flow.pools.llm.tensorrt_llm.scheduler import TensorRTScheduler


class SharedQueue(RankedScheduler):
    """The schedulers of one client; a request has a rank from when it is active.

    ``balance`` has the two numbers of steps of a wait, None without one. ``_uneven`` counts the steps since not every
    rank could run a prompt, ``_batching`` those in which all could.
    """

    cancels: ClassVar[bool] = True

    __slots__ = ("_balance", "_batching", "_queue", "_schedulers", "_uneven")

    def __init__(self, ranks: Sequence[TensorRTScheduler], balance: tuple[int, int] | None = None) -> None:
        super().__init__(ranks)
        self._balance = balance
        self._uneven = self._batching = 0
        self._schedulers = list(ranks)
        self._queue: deque[Any] = deque()

    @property
    def idle(self) -> bool:
        """Whether no request is waiting or running."""
        return not self._queue and super().idle

    def enqueue(self, sequence: Any) -> None:
        """Take in a request that has arrived."""
        self._queue.append(sequence)

    def withdraw(self, sequence: Any) -> bool:
        """Remove a request that is not active; an active one is cancelled after the next result."""
        if sequence in self._queue:
            self._queue.remove(sequence)
            return True
        return super().withdraw(sequence)

    def fresh(self) -> int:
        """Return the number of requests of which nothing is computed."""
        return len(self._queue) + super().fresh()

    def missing_tokens(self) -> int:
        """Return the tokens of prompts that no step has computed or computes."""
        queued: int = sum([one.length for one in self._queue])
        return queued + super().missing_tokens()

    def decide(self) -> Step | None:
        """Return the next step of all ranks and take its memory; None if a rank with active requests can run none."""
        self._share_out()
        proposals = [(rank, *rank.propose()) for rank in self._schedulers]
        if self._balance is not None and any(rank.active for rank in self._schedulers):
            prompts = [len(contexts) for _, _, contexts in proposals]
            decodes = [len(step.decodes) if rank.active else 1 for rank, step, _ in proposals]  # 1: a dummy
            if self._hold_back(prompts, decodes, *self._balance):
                proposals = [(rank, step, []) for rank, step, _ in proposals]
        if any(rank.must_run() and not contexts and not step.decodes for rank, step, contexts in proposals):
            for rank, step, _ in proposals:
                rank.put_off(step)
            return self._join([None] * len(proposals))
        return self._join([rank.take(step, contexts) for rank, step, contexts in proposals])

    def _hold_back(self, prompts: list[int], decodes: list[int], timeout: int, batching: int) -> bool:
        """Return whether the prompts of all ranks wait, by how many prompts and decodes each rank has."""
        all_decode = min(decodes) > 0
        if min(prompts) > 0 and all(
            count < rank.max_running for rank, count in zip(self._schedulers, decodes, strict=True)
        ):
            self._uneven = 0
            if not all_decode:
                return False
            if self._batching < batching:
                self._batching += 1
                return True
            self._batching = 0
            return False
        self._uneven += 1
        if self._uneven < timeout and all_decode:
            return True
        self._uneven = 0
        return False

    def decode_equally(self, steps: int) -> None:
        """Make the ``steps`` decisions that ``equal_decodes`` has announced, and deliver their results."""
        super().decode_equally(steps)
        if self._balance is not None:
            self._uneven = (self._uneven + steps) % max(1, self._balance[0])

    def equal_decodes(self) -> int:
        """Return how many of the next decisions are plain decode steps on every rank that has work."""
        return 0 if self._queue and self.admits() else super().equal_decodes()

    def _share_out(self) -> None:
        """Make waiting requests active, as many as there are seats."""
        ranks, queue = self._schedulers, self._queue
        counts = [len(rank.active) for rank in ranks]
        seats = sum([rank.max_running for rank in ranks]) - sum(counts)
        if not queue or seats <= 0:
            return
        new = [queue.popleft() for _ in range(min(seats, len(queue)))]
        share = max(-(-(sum(counts) + len(new)) // len(ranks)), max(counts))
        heap = [
            (sum([one.prompt for one in rank.active]), counts[place], place)
            for place, rank in enumerate(ranks)
            if counts[place] < share
        ]
        heapify(heap)
        for sequence in sorted(new, key=lambda one: -one.prompt):
            tokens, count, place = heappop(heap)
            ranks[place].active.append(sequence)
            self._assign(sequence, place)
            if count + 1 < share:
                heappush(heap, (tokens + sequence.prompt, count + 1, place))
