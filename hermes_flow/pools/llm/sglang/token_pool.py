"""The KV memory of SGLang: pages of requests, pages of the radix tree, and free pages."""

from __future__ import annotations

from collections.abc import Iterable

from hermes_flow.pools.llm.sglang.radix_tree import Node, Page, RadixTree
from hermes_flow.pools.llm.sglang.sequence import Sequence


class TokenPool:
    """``free`` tokens have no owner. All sizes are in tokens, as whole pages of ``page`` tokens."""

    __slots__ = ("capacity", "free", "page", "peak", "tree")

    def __init__(self, pages: int, page: int, *, tree: bool) -> None:
        self.page = page
        self.capacity = self.free = pages * page
        self.tree = RadixTree() if tree else None
        self.peak = 0  # most tokens in use, those that the tree keeps for nobody not counted

    def up(self, tokens: int) -> int:
        """Return ``tokens`` rounded up to whole pages."""
        return -(-tokens // self.page) * self.page

    def down(self, tokens: int) -> int:
        """Return ``tokens`` rounded down to whole pages."""
        return tokens // self.page * self.page

    @property
    def room(self) -> int:
        """Tokens that are free or can be evicted."""
        return self.free if self.tree is None else self.free + self.tree.evictable * self.page

    def evict_until(self, wanted: int) -> None:
        """Evict until ``wanted`` tokens are free, or nothing is left to evict."""
        if self.tree is not None and self.free < wanted:
            self.free += self.tree.evict(-(-(wanted - self.free) // self.page)) * self.page

    def match(self, sequence: Sequence, tokens: int) -> tuple[Node | None, int]:
        """Return the longest known prefix among the first ``tokens`` of a sequence, its end and its length."""
        if self.tree is None:
            return None, 0
        node, pages = self.tree.match(sequence.pages[: tokens // self.page])
        return node, pages * self.page

    def grow(self, sequence: Sequence, tokens: int) -> None:
        """Take memory for the next ``tokens`` of a sequence, which is free."""
        self.free -= self.up(sequence.computed + tokens) - self.up(sequence.computed)
        sequence.computed += tokens

    def note_peak(self) -> None:
        """Update the highest memory use."""
        used = self.capacity - self.room
        if used > self.peak:
            self.peak = used

    @property
    def only_in_host(self) -> int:
        """The tokens after those of the last match that only the memory of the host has."""
        return 0

    def _insert(self, pages: list[Page], *, whole: bool) -> tuple[Node, int]:
        """Insert pages into the tree; ``whole`` where these are all that a prompt or sequence has computed."""
        assert self.tree is not None
        return self.tree.insert(pages)

    def publish(self, sequence: Sequence, tokens: int, *, whole: bool = True) -> None:
        """Give the first ``tokens`` of a sequence to the tree; pages that the tree has already are freed.

        ``whole`` is false for the part of a prompt that goes on.
        """
        tree = self.tree
        if tree is None:
            return
        count = tokens // self.page
        pages = sequence.pages[:count]
        node, there = self._insert(pages, whole=whole)
        self.free += there * self.page - sequence.protected
        prompt = sequence.prompt // self.page
        if 0 < prompt < count:  # so that the answer can be evicted without the prompt
            self._insert(pages[:prompt], whole=False)
            node = tree.end_of(pages)
        tree.hold(node)
        tree.release(sequence.node)
        sequence.node = node
        sequence.protected = count * self.page

    def give_back(self, sequence: Sequence) -> None:
        """Free the pages that a sequence owns, and release those that it holds."""
        self.free += self.up(sequence.computed) - sequence.protected
        if self.tree is not None:
            self.tree.release(sequence.node)
        sequence.node = None
        sequence.computed = sequence.protected = 0

    def fits(self, batch: Iterable[Sequence]) -> bool:
        """Return whether every sequence of ``batch`` can have one more token, after evicting to that end."""
        page = self.page
        need = page * sum([sequence.computed % page == 0 for sequence in batch])
        self.evict_until(need)
        return self.free >= need
