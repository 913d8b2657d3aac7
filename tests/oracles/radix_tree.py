"""A naive prefix tree as SGLang keeps it: whole pages, holders, and eviction of the oldest unheld leaf."""

from __future__ import annotations

from collections.abc import Sequence

BELOW = 0.00001


class Node:
    """A run of whole pages below its parent; ``holders`` counts requests whose path passes it."""

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], used: float) -> None:
        self.parent = parent
        self.tokens = tokens
        self.used = used
        self.holders = 0
        self.children: dict[tuple[int, ...], Node] = {}


class RadixTree:
    """The tree of one client; ``tokens`` are counted in all nodes, ``evictable`` in those that no request holds."""

    def __init__(self, page: int) -> None:
        self.page = page
        self.count = 0
        self.root = Node(None, (), 0)
        self.root.holders = 1
        self.nodes: list[Node] = []

    @property
    def evictable(self) -> int:
        return sum(len(node.tokens) for node in self.nodes if not node.holders)

    def match(self, tokens: Sequence[int]) -> tuple[Node, int]:
        """Return the node at which the longest known prefix of whole pages ends, and that prefix's length."""
        node, known = self.root, 0
        while True:
            child = node.children.get(tuple(tokens[known : known + self.page]))
            if child is None:
                break
            same = self._common(child.tokens, tokens[known:])
            if same < len(child.tokens):
                node = self._split(child, same)
                known += same
                break
            node, known = child, known + same
        used = float(self._next())
        last: Node | None = node
        while last is not None:
            last.used = used
            used -= BELOW
            last = last.parent
        return node, known

    def insert(self, tokens: Sequence[int]) -> tuple[Node, int]:
        """Insert whole pages; return the node at their end, and how many tokens were there already."""
        node, known = self.root, 0
        node.used = self._next()
        while known < len(tokens):
            child = node.children.get(tuple(tokens[known : known + self.page]))
            if child is None:
                break
            child.used = self._next()
            same = self._common(child.tokens, tokens[known:])
            if same < len(child.tokens):
                child = self._split(child, same)
            node, known = child, known + same
        there = known
        if known < len(tokens):
            node = self._new(node, tuple(tokens[known:]))
        return node, there

    def hold(self, node: Node | None, by: int) -> None:
        while node is not None and node is not self.root:
            node.holders += by
            node = node.parent

    def evict(self, wanted: int) -> int:
        """Drop whole unheld leaves, the oldest first, until ``wanted`` tokens are dropped or none is left."""
        dropped = 0
        while dropped < wanted:
            leaves = [node for node in self.nodes if not node.holders and not node.children]
            if not leaves:
                break
            leaf = min(leaves, key=lambda node: node.used)
            assert leaf.parent is not None
            del leaf.parent.children[leaf.tokens[: self.page]]
            self.nodes.remove(leaf)
            dropped += len(leaf.tokens)
        return dropped

    def _next(self) -> int:
        self.count += 1
        return self.count

    def _new(self, parent: Node, tokens: tuple[int, ...]) -> Node:
        node = Node(parent, tokens, self._next())
        self._next()
        parent.children[tokens[: self.page]] = node
        self.nodes.append(node)
        return node

    def _split(self, lower: Node, at: int) -> Node:
        assert lower.parent is not None
        upper = self._new(lower.parent, lower.tokens[:at])
        upper.holders = lower.holders
        lower.tokens = lower.tokens[at:]
        lower.parent = upper
        upper.children[lower.tokens[: self.page]] = lower
        lower.used = self._next()
        return upper

    def _common(self, first: Sequence[int], second: Sequence[int]) -> int:
        """Return the number of tokens in whole pages that both begin with."""
        same = 0
        for one, other in zip(first, second, strict=False):
            if one != other:
                break
            same += 1
        return same // self.page * self.page
