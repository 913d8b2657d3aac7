"""The radix tree of SGLang: the content of its KV pages, their users, and the order of evictions.

A page is named by an id; equal ids after equal ids are equal content. Recency is counted as the engine counts it,
so that the order of evictions is the engine's.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush

_BELOW = 0.00001  # how much older than its child a matched node counts

Page = int


class Node:
    """A run of pages below its parent. ``holders`` counts the requests whose path leads through it."""

    __slots__ = ("children", "holders", "pages", "parent", "used")

    def __init__(self, parent: Node | None, pages: list[Page], used: float) -> None:
        self.parent = parent
        self.pages = pages
        self.used = used
        self.holders = 0
        self.children: dict[Page, Node] = {}


class RadixTree:
    """The tree of one client; all sizes are in pages. ``evictable`` pages are in nodes that no request holds."""

    __slots__ = ("_clock", "_leaves", "_pushed", "evictable", "root")

    def __init__(self) -> None:
        self._clock = 0
        self._leaves: list[
            tuple[float, int, Node]
        ] = []  # heap; an entry counts while its recency is the node's
        self._pushed = 0
        self.evictable = 0
        self.root = Node(None, [], 0.0)

    def match(self, pages: Sequence[Page]) -> tuple[Node, int]:
        """Return the node at the end of the longest known prefix, and that prefix's length; both become recent.

        A prefix that ends inside a node splits it.
        """
        node, known = self.root, 0
        end = len(pages)
        while known < end:
            child = node.children.get(pages[known])
            if child is None:
                break
            same = common_pages(child.pages, pages, known)
            if same < len(child.pages):
                node = self._split(child, same)
                known += same
                break
            node, known = child, known + same
        self._clock += 1
        used = float(self._clock)
        last: Node | None = node
        while last is not None:
            self._touch(last, used)
            used -= _BELOW
            last = last.parent
        return node, known

    def insert(self, pages: list[Page]) -> tuple[Node, int]:
        """Insert a prefix; return the node at its end, and how many of its pages were there already."""
        node, known = self.root, 0
        end = len(pages)
        self._clock += 1
        node.used = float(self._clock)
        while known < end:
            child = node.children.get(pages[known])
            if child is None:
                break
            self._clock += 1
            self._touch(child, float(self._clock))
            same = common_pages(child.pages, pages, known)
            if same < len(child.pages):
                child = self._split(child, same)
            node, known = child, known + same
        there = known
        if known < end:
            node = self._new(node, pages[known:])
            self.evictable += len(node.pages)
            self._may_leave(node)
        return node, there

    def end_of(self, pages: Sequence[Page]) -> Node:
        """Return the node at the end of a prefix that is known and ends with a node."""
        node, known = self.root, 0
        while known < len(pages):
            node = node.children[pages[known]]
            known += len(node.pages)
        return node

    def hold(self, node: Node | None) -> None:
        """Hold a node and all above it."""
        while node is not None and node.parent is not None:
            if not node.holders:
                self.evictable -= len(node.pages)
            node.holders += 1
            node = node.parent

    def release(self, node: Node | None) -> None:
        """Undo a ``hold``."""
        while node is not None and node.parent is not None:
            node.holders -= 1
            if not node.holders:
                self.evictable += len(node.pages)
                self._may_leave(node)
            node = node.parent

    def evict(self, wanted: int) -> int:
        """Drop whole unheld leaves, the oldest first, until ``wanted`` pages are dropped or none is left."""
        dropped, leaves = 0, self._leaves
        while dropped < wanted and leaves:
            used, _, leaf = heappop(leaves)
            parent = leaf.parent
            if parent is None or leaf.holders or leaf.children or leaf.used != used:
                continue  # dropped, held, grown or used since
            del parent.children[leaf.pages[0]]
            leaf.parent = None
            dropped += len(leaf.pages)
            self._may_leave(parent)
        self.evictable -= dropped
        return dropped

    def _touch(self, node: Node, used: float) -> None:
        node.used = used
        self._may_leave(node)

    def _may_leave(self, node: Node) -> None:
        if not node.holders and not node.children and node.parent is not None:
            self._pushed += 1
            heappush(self._leaves, (node.used, self._pushed, node))

    def _new(self, parent: Node, pages: list[Page]) -> Node:
        self._clock += 2  # the engine reads its clock twice for a new node
        node = Node(parent, pages, float(self._clock - 1))
        parent.children[pages[0]] = node
        return node

    def _split(self, lower: Node, at: int) -> Node:
        """Cut a node in two; return the upper part."""
        assert lower.parent is not None
        upper = self._new(lower.parent, lower.pages[:at])
        upper.holders = lower.holders
        lower.pages = lower.pages[at:]
        lower.parent = upper
        upper.children[lower.pages[0]] = lower
        self._clock += 1
        self._touch(lower, float(self._clock))
        return upper


def common_pages(own: list[Page], pages: Sequence[Page], begin: int) -> int:
    """Return how many pages of a node the prefix has from ``begin`` on."""
    most = min(len(own), len(pages) - begin)
    if own[:most] == pages[begin : begin + most]:
        return most
    low, high = 0, most  # equal before low, different before high
    while high - low > 1:
        middle = (low + high) // 2
        if own[low:middle] == pages[begin + low : begin + middle]:
            low = middle
        else:
            high = middle
    return low
