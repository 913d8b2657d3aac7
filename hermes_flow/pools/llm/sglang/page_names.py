"""Names the pages of prompts and answers, so that equal content has equal names."""

from __future__ import annotations

from collections.abc import Hashable

from hermes_flow.pools.llm.sglang.radix_tree import Page
from hermes_flow.pools.llm.tasks import LLMTasks

_OWN = 1 << 72  # pages that no other request has are named from here on
_PAGE_BITS = 40


class PageNames:
    """The names of the pages of one pool's tasks; ``page`` tokens each. Without a radix tree pages have no names."""

    __slots__ = ("_chains", "_page", "_tasks", "_tree")

    def __init__(self, tasks: LLMTasks, page: int, *, tree: bool) -> None:
        self._tasks = tasks
        self._page = page
        self._tree = tree
        self._chains: dict[Hashable, int] = {}

    def pages(self, task: int) -> list[Page]:
        """Return the names of all whole pages of a task's prompt and answer, in order."""
        if not self._tree:
            return []
        tasks, page = self._tasks, self._page
        prompt, whole = tasks.prompt[task], (tasks.prompt[task] + tasks.output[task]) // page
        names: list[Page] = []
        for chain, first, last in tasks.block_runs(task, page):
            names += self._named(chain, first, last)
        known = prompt // page
        if len(names) == known:
            for chain, first, last in tasks.answer_runs(task, page):
                names += self._named(chain, first, last)
        own = _OWN + (task << _PAGE_BITS)
        names += range(own + len(names), own + whole)
        return names

    def _named(self, chain: Hashable, first: int, last: int) -> range:
        number = self._chains.setdefault(chain, len(self._chains))
        return range((number << _PAGE_BITS) + first, (number << _PAGE_BITS) + last)
