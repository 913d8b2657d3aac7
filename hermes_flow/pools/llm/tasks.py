"""The tasks of an LLM pool: what each asks for, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeAlias

# (task, block size, prompt tokens) → keys of the prompt's first full blocks
BlockKeys: TypeAlias = Callable[[int, int, int], Sequence[Hashable]]
# (task, block size, prompt tokens, output tokens) → keys of the full blocks after those
AnswerKeys: TypeAlias = Callable[[int, int, int, int], Sequence[Hashable]]


class LLMTasks:
    """The tasks of one LLM pool as columns indexed by task, shared by its clients; times in picoseconds."""

    __slots__ = (
        "_answer_keys",
        "_block_keys",
        "_keys",
        "_keys_of",
        "_priority",
        "cached",
        "emits_first",
        "finish_ps",
        "first_ps",
        "generated",
        "kept",
        "last_iteration",
        "output",
        "preemptions",
        "preloaded",
        "prompt",
        "since_ps",
        "start_ps",
        "staying",
    )

    def __init__(
        self,
        prompt: list[int],
        output: list[int],
        priority: list[int] | None = None,
        block_keys: BlockKeys | None = None,
        answer_keys: AnswerKeys | None = None,
    ) -> None:
        count = len(prompt)
        self.prompt = prompt
        self.output = output
        self.start_ps = [-1] * count
        self.first_ps = [-1] * count
        self.finish_ps = [-1] * count
        self.generated = [0] * count
        self.last_iteration = [-1] * count
        self.preemptions: dict[int, int] = {}
        self.cached: dict[int, int] = {}
        self.staying: set[int] = set()  # prompts whose KV no other client awaits, where that of others leaves
        self.emits_first = False  # those whose KV comes from another client emit their first token here
        self.kept: dict[int, int] = {}  # waiting task → computed tokens that lie in host memory
        self.preloaded: dict[int, int] | None = (
            None  # task → computed tokens that were retrieved; None: of no pool
        )
        self.since_ps: dict[int, int] = {}  # task that is not ready → since when it has its place in a queue
        self._priority = priority
        self._block_keys = block_keys
        self._answer_keys = answer_keys
        self._keys_of = -1
        self._keys: Sequence[Hashable] = ()

    def priority_of(self, task: int) -> int:
        """The request's class; 0, the most urgent, where the workload has none."""
        return 0 if self._priority is None else self._priority[task]

    def block_keys(self, task: int, block_size: int) -> Sequence[Hashable]:
        """The keys of the prompt's first full blocks, each standing for its content and all before it."""
        if self._block_keys is None:
            return ()
        if self._keys_of != task:  # a plan asks about the same task several times
            self._keys_of = task
            self._keys = self._block_keys(task, block_size, self.prompt[task])
        return self._keys

    def answer_keys(self, task: int, block_size: int) -> Sequence[Hashable]:
        """The keys of the full blocks after those of ``block_keys``, where a later prompt may hold the answer too.

        They reach to the answer's end: not for those who may not know its length.
        """
        if self._answer_keys is None:
            return ()
        return self._answer_keys(task, block_size, self.prompt[task], self.output[task])
