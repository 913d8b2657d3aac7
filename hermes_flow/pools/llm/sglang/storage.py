"""The storage behind the host of SGLang's hierarchical cache: its pages, backups of the host, and prefetches.

The rules are those of HiCacheController in SGLang 0.5 (cache_controller.py). One thread reads, a batch of pages at a
time, the requests in their order; what is written is found as soon as the write is over.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.sglang.radix_tree import Page
from hermes_flow.program.offload import FetchSpec
from hermes_flow.program.units import NEVER, PS_PER_S

if TYPE_CHECKING:
    from hermes_flow.pools.llm.sglang.host_tree import HostNode

_BATCH = 128  # source: SGLang 0.5, STORAGE_BATCH_SIZE of HiCacheController, in pages
_TIMEOUT_PS = int(PS_PER_S)  # source: SGLang 0.5, prefetch_timeout_base
_TIMEOUT_PER_KI_TOKEN_PS = int(PS_PER_S) // 4  # source: SGLang 0.5, prefetch_timeout_per_ki_token


class Fetch:
    """What one request has read from storage: ``done`` of ``pages``, to go below ``above`` in the tree."""

    __slots__ = ("above", "asked", "began_ps", "done", "over", "pages")

    def __init__(self, above: HostNode, pages: list[Page], asked: int, began_ps: int) -> None:
        self.above = above
        self.pages = pages
        self.asked = asked  # pages that were looked for
        self.began_ps = began_ps
        self.done = 0
        self.over = False  # the request goes on with what has come


class Storage:
    """The pages of one client on ``capacity`` pages of a drive, the least recently used of which are dropped.

    A page is found by all pages before it and itself. ``at`` brings reading up to an instant, and is called before
    anything else at that instant.
    """

    __slots__ = (
        "_fetches",
        "_keys",
        "_links",
        "_page",
        "_pages",
        "_policy",
        "_reading",
        "_writing",
        "capacity",
        "dropped",
        "now_ps",
        "peak",
        "read",
        "threshold",
        "written",
    )

    def __init__(self, capacity: int, page: int, spec: FetchSpec, links: LoadLinks) -> None:
        self.capacity = capacity
        self.threshold = max(1, -(-spec.least_tokens // page))  # in pages
        self._page, self._policy, self._links = page, spec.policy, links
        self._keys: dict[tuple[int, Page], int] = {}  # (name of the prefix before, page) → name of the prefix
        self._pages: OrderedDict[int, int] = OrderedDict()  # prefix → when it is there, the oldest use first
        self._fetches: deque[Fetch] = deque()
        self._reading: tuple[int, int] | None = None  # end and pages of the batch that is read for the first
        self._writing: deque[tuple[int, HostNode]] = deque()
        self.now_ps = 0
        self.read = self.written = self.dropped = self.peak = 0

    def at(self, now_ps: int) -> None:
        """Read on until an instant: a batch begins when the one before it is over."""
        free_ps, self.now_ps = self.now_ps, now_ps
        while True:
            if self._reading is not None:
                free_ps, pages = self._reading
                if free_ps > now_ps:
                    return
                self._fetches[0].done += pages
                self._reading = None
            while self._fetches and (
                self._fetches[0].over or self._fetches[0].done == len(self._fetches[0].pages)
            ):
                self._fetches.popleft()
            if not self._fetches:
                return
            first = self._fetches[0]
            pages = min(_BATCH, len(first.pages) - first.done)
            self.read += pages
            self._reading = (self._links.fetch(max(free_ps, first.began_ps), pages), pages)

    def find(self, before: Sequence[Page], pages: Sequence[Page]) -> int:
        """Return how many of ``pages`` behind the pages ``before`` are there; they become recent."""
        found = []
        for key in self._names(before, pages):
            if self._pages.get(key, NEVER) > self.now_ps:
                break
            found.append(key)
        for key in reversed(found):
            self._pages.move_to_end(key)
        return len(found)

    def fetch(self, above: HostNode, pages: list[Page], asked: int) -> Fetch:
        """Begin to read pages that were found."""
        fetch = Fetch(above, pages, asked, self.now_ps)
        self._fetches.append(fetch)
        self.at(self.now_ps)
        return fetch

    def goes_on(self, fetch: Fetch) -> bool:
        """Return whether a request whose turn it is goes on with what has come."""
        if self._policy == "best_effort" or fetch.done == len(fetch.pages):
            return True
        return self._policy == "timeout" and self.now_ps > self._timeout_ps(fetch)

    def write(self, node: HostNode, before: Sequence[Page]) -> None:
        """Begin to write the pages of a node; those that are there already are not written again."""
        names = self._names(before, node.pages)
        new = [key for key in names if key not in self._pages]
        room = self.capacity - len(self._pages)
        kept = new[: self.capacity]
        for _ in range(len(kept) - room):
            self._pages.popitem(last=False)
            self.dropped += 1
        self.written += len(kept)
        until_ps = self._links.move_on(0, len(kept), self.now_ps) if kept else self.now_ps
        for key in kept:
            self._pages[key] = until_ps
        for key in reversed(names):
            if key in self._pages:
                self._pages.move_to_end(key)
        self.peak = max(self.peak, len(self._pages))
        self._writing.append((until_ps, node))

    def written_by_now(self) -> list[HostNode]:
        """Return the nodes whose write is over."""
        nodes = []
        while self._writing and self._writing[0][0] <= self.now_ps:
            nodes.append(self._writing.popleft()[1])
        return nodes

    def next_ps(self) -> int:
        """Return when the next batch is read, the next node written, or the next request no longer waits."""
        ends = [self._writing[0][0]] if self._writing else []
        if self._reading is not None:
            ends.append(self._reading[0])
        if self._policy == "timeout":
            ends += [self._timeout_ps(one) + 1 for one in self._fetches if not one.over]
        return min([end for end in ends if end > self.now_ps], default=NEVER)

    def _timeout_ps(self, fetch: Fetch) -> int:
        tokens = len(fetch.pages) * self._page
        return fetch.began_ps + _TIMEOUT_PS + tokens * _TIMEOUT_PER_KI_TOKEN_PS // 1024

    def _names(self, before: Sequence[Page], pages: Sequence[Page]) -> list[int]:
        """Return the names of the prefixes that end with each of ``pages``."""
        keys, name, names = self._keys, 0, []
        for page in before:
            name = keys.setdefault((name, page), len(keys) + 1)
        for page in pages:
            name = keys.setdefault((name, page), len(keys) + 1)
            names.append(name)
        return names
