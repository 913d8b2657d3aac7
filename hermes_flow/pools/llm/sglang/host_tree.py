"""The radix tree of SGLang's hierarchical cache: nodes on the devices, in the memory of the host, or on both.

A node that is written to the host can leave the devices and be found again. The rules are those of HiRadixCache in
SGLang 0.5 (hiradix_cache.py): a node is written as it is computed, as it is used a second time, or as it is evicted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Literal

from hermes_flow.pools.llm.offload.links import LoadLinks
from hermes_flow.pools.llm.sglang.radix_tree import Node, Page, RadixTree, common_pages
from hermes_flow.pools.llm.sglang.storage import Storage
from hermes_flow.program.units import NEVER

Write = Literal["evicted", "computed", "reused"]
_USES = {"computed": 1, "reused": 2}  # source: SGLang 0.5, write_through_threshold of HiRadixCache


class HostNode(Node):
    """A node with places: ``below`` of its children are on the devices; ``uses`` counts the times it was given.

    The host keeps it while somebody ``guards`` it: who writes it to the drive, or reads what comes behind it.
    """

    __slots__ = ("backed", "below", "guards", "on_device", "uses")

    def __init__(self, parent: Node | None, pages: list[Page], used: float) -> None:
        super().__init__(parent, pages, used)
        self.on_device = True
        self.backed = False  # its pages are in the host's memory
        self.below = 0
        self.guards = 0
        self.uses = 0


class HostTree(RadixTree):
    """A radix tree above ``capacity`` pages of host memory. ``now_ps`` is the present instant.

    Nodes are held while they are written or loaded, until ``acknowledge`` sees that this is over. ``blocked_ps`` is
    when the last write of an eviction is over, for which the engine has waited. ``host_end`` and ``host_pages`` tell
    of the last match: the node at which it ends, and how many of its last pages only the host has.
    """

    __slots__ = (
        "_host_leaves",
        "_links",
        "_moving",
        "_write",
        "_written_back",
        "blocked_ps",
        "capacity",
        "dropped",
        "host_end",
        "host_free",
        "host_pages",
        "now_ps",
        "peak",
        "storage",
        "written",
    )

    def __init__(self, capacity: int, write: Write, links: LoadLinks, storage: Storage | None) -> None:
        super().__init__()
        self.storage = storage
        self._written_back: list[tuple[int, HostNode]] = []  # (end, node) of the writes of an eviction
        self._write = write
        self._links = links
        self._host_leaves: list[tuple[float, int, HostNode]] = []  # heap, as that of the leaves on devices
        self._moving: tuple[deque[tuple[int, Node]], ...] = (deque(), deque())  # written, loaded: (end, node)
        self.root: HostNode = HostNode(None, [], 0.0)
        self.root.backed = True
        self.capacity = self.host_free = capacity
        self.now_ps = self.blocked_ps = 0
        self.host_end: HostNode = self.root
        self.host_pages = 0
        self.written = self.dropped = self.peak = 0

    def match(self, pages: Sequence[Page]) -> tuple[Node, int]:
        """Return the node at the end of the longest prefix on the devices, and that prefix's length in pages."""
        node, known = super().match(pages)
        assert isinstance(node, HostNode)
        self.host_end, self.host_pages = node, 0
        while not node.on_device:
            self.host_pages += len(node.pages)
            assert isinstance(node.parent, HostNode)
            node = node.parent
        return node, known - self.host_pages

    def insert(self, pages: list[Page], *, counts: bool = True) -> tuple[Node, int]:
        """Insert a prefix; return the node at its end, and how many of its pages were on the devices already.

        With ``counts`` every node of it is used once more, and may be written to the host for that.
        """
        node, known, there = self.root, 0, 0
        end = len(pages)
        self._clock += 1
        node.used = float(self._clock)
        while known < end and (found := self._follow(node, pages, known)) is not None:
            child, same = found
            if child.on_device:
                there += same
                self._use(child, counts)
            else:  # it was computed again
                self._place(child)
            node, known = child, known + same
        if known < end:
            node = self._new(node, pages[known:])
            self.evictable += len(node.pages)
            self._may_leave(node)
            self._use(node, counts)
        return node, there

    def evict(self, wanted: int) -> int:
        """Free pages of whole unheld leaves, the oldest first, until ``wanted`` are free or none is left.

        What it writes to the host is there as this returns: ``now_ps`` moves on to ``blocked_ps``.
        """
        freed, leaves = 0, self._leaves
        while freed < wanted and leaves:
            used, _, leaf = heappop(leaves)
            assert isinstance(leaf, HostNode)
            parent = leaf.parent
            if parent is None or not self._is_leaf(leaf) or leaf.used != used:
                continue
            assert isinstance(parent, HostNode)
            freed += len(leaf.pages)
            self.evictable -= len(leaf.pages)
            parent.below -= 1
            if not leaf.backed and self._write == "evicted":
                until_ps = self._back_up(leaf)
                if leaf.backed:
                    leaf.guards += 1
                    self._written_back.append((until_ps, leaf))
            leaf.on_device = False
            if not leaf.backed:
                self._remove(leaf, parent)
            self._may_leave(leaf)
            self._may_leave(parent)
        self._wait_for_writes()
        return freed

    def bring_back(self, end: HostNode) -> list[HostNode]:
        """Return the nodes above ``end``, itself included, that only the host has, the first one first."""
        nodes: list[HostNode] = []
        while not end.on_device:
            nodes.append(end)
            assert isinstance(end.parent, HostNode)
            end = end.parent
        return nodes[::-1]

    def load(self, nodes: list[HostNode]) -> None:
        """Put nodes of the host back onto the devices, where there is room; ``loading`` follows."""
        for node in nodes:
            self._place(node)

    def loading(self, node: Node, until_ps: int) -> None:
        """Let a node that is held be released when its load is over."""
        self._moving[1].append((until_ps, node))

    def acknowledge(self) -> None:
        """Release the nodes whose write or load is over; what was written to the host goes on to the drive."""
        self.acknowledge_writes()
        loads = self._moving[1]
        while loads and loads[0][0] <= self.now_ps:
            self.release(loads.popleft()[1])
        if self.storage is not None:
            for node in self.storage.written_by_now():
                self.unguard(node)

    def acknowledge_writes(self) -> None:
        """Release the nodes whose write is over, which goes on to the drive."""
        writes = self._moving[0]
        while writes and writes[0][0] <= self.now_ps:
            node = writes.popleft()[1]
            self.release(node)
            if self.storage is not None:
                assert isinstance(node, HostNode)
                node.guards += 1
                self._save(node)

    def next_ps(self) -> int:
        """Return when the next write or load is over, or the drive has got on."""
        own = min([moving[0][0] for moving in self._moving if moving], default=NEVER)
        return own if self.storage is None else min(own, self.storage.next_ps())

    # The drive behind the host

    def at(self, now_ps: int) -> None:
        """Set the present instant."""
        self.now_ps = now_ps
        if self.storage is not None:
            self.storage.at(now_ps)

    @property
    def unsaved(self) -> bool:
        """Whether something goes on to the drive as soon as the engine looks."""
        return self.storage is not None and bool(self._moving[0])

    def unguard(self, node: HostNode) -> None:
        """Let the host drop a node again."""
        node.guards -= 1
        self._may_leave(node)

    def path(self, node: HostNode) -> list[Page] | None:
        """Return all pages down to a node and with its own; None where the way to it is cut."""
        parts: list[list[Page]] = []
        while node.parent is not None:
            parts.append(node.pages)
            assert isinstance(node.parent, HostNode)
            node = node.parent
        return [page for part in reversed(parts) for page in part] if node is self.root else None

    def reserve(self, pages: int) -> bool:
        """Take room in the host for pages that are read, after evictions there; return whether there is any."""
        if self.host_free < pages:
            self._evict_from_host(pages)
        if self.host_free < pages:
            return False
        self.host_free -= pages
        self.peak = max(self.peak, self.capacity - self.host_free)
        return True

    def _follow(self, node: HostNode, pages: list[Page], known: int) -> tuple[HostNode, int] | None:
        """Return the child that goes on with ``pages`` from ``known`` on, and how many pages they share.

        It is cut where it parts from them, and it is used now. None where there is no such child.
        """
        child = node.children.get(pages[known])
        if child is None:
            return None
        assert isinstance(child, HostNode)
        self._clock += 1
        self._touch(child, float(self._clock))
        same = common_pages(child.pages, pages, known)
        return (child if same == len(child.pages) else self._split(child, same)), same

    def add(self, above: HostNode, pages: list[Page]) -> int:
        """Put pages that were read behind a node, in room that is theirs; return how many of them were not there."""
        node, known, end = above, 0, len(pages)
        self._clock += 1
        self._touch(node, float(self._clock))
        while known < end and (found := self._follow(node, pages, known)) is not None:
            child, same = found
            node, known = child, known + same
        if known == end or not node.backed or self.path(node) is None:
            return 0
        new = self._new(node, pages[known:])
        new.on_device, new.backed = False, True
        node.below -= 1
        self._may_leave(new)
        return end - known

    def _wait_for_writes(self) -> None:
        """Wait for the writes of an eviction, each of which goes on to the drive as it is over."""
        # source: SGLang 0.5, HiRadixCache.evict ends with writing_check(write_back=True), in the scheduler's thread.
        for until_ps, node in self._written_back:
            self.at(until_ps)
            if self.storage is None:
                self.unguard(node)
            else:
                self._save(node)
        self._written_back.clear()

    def _save(self, node: HostNode) -> None:
        assert self.storage is not None
        path = self.path(node)
        if path is None:
            self.unguard(node)
        else:
            self.storage.write(node, path[: len(path) - len(node.pages)])

    def _use(self, node: HostNode, counts: bool) -> None:
        """Count a use of a node, and write it to the host where it is time for that."""
        if self._write == "evicted" or not counts:
            return
        node.uses += 1
        assert isinstance(node.parent, HostNode)
        if not node.backed and node.uses >= _USES[self._write] and node.parent.backed:
            until_ps = self._back_up(node)
            if node.backed:
                self.hold(node)
                self._moving[0].append((until_ps, node))

    def _back_up(self, node: HostNode) -> int:
        """Write a node to the host, if there is room after evictions there; return when that is over."""
        size = len(node.pages)
        if self.host_free < size:
            self._evict_from_host(size)
        if self.host_free < size:
            return 0
        self.host_free -= size
        self.peak = max(self.peak, self.capacity - self.host_free)
        self.written += size
        node.backed = True
        until_ps = self._links.write(size, self.now_ps, from_devices=True)
        if self._write == "evicted":
            self.blocked_ps = until_ps
        return until_ps

    def _evict_from_host(self, wanted: int) -> None:
        """Drop leaves that only the host has, the oldest first, until ``wanted`` pages are dropped."""
        dropped, leaves = 0, self._host_leaves
        while dropped < wanted and leaves:
            used, _, leaf = heappop(leaves)
            parent = leaf.parent
            if parent is None or leaf.on_device or leaf.children or leaf.guards or leaf.used != used:
                continue
            assert isinstance(parent, HostNode)
            dropped += len(leaf.pages)
            self._remove(leaf, parent)
            self._may_leave(parent)
        self.host_free += dropped
        self.dropped += dropped

    def _place(self, node: HostNode) -> None:
        """Put a node of the host on the devices as well."""
        assert isinstance(node.parent, HostNode)
        node.on_device = True
        node.parent.below += 1
        self.evictable += len(node.pages)
        self._may_leave(node)

    def _remove(self, node: HostNode, parent: HostNode) -> None:
        del parent.children[node.pages[0]]
        node.parent = None

    def _is_leaf(self, node: HostNode) -> bool:
        """Whether a node is on the devices, nobody holds it, and no child of it is there."""
        return node.on_device and not node.holders and not node.below

    def _may_leave(self, node: Node) -> None:
        assert isinstance(node, HostNode)
        if node.parent is None:
            return
        if self._is_leaf(node):
            self._pushed += 1
            heappush(self._leaves, (node.used, self._pushed, node))
        elif not node.on_device and not node.children:
            self._pushed += 1
            heappush(self._host_leaves, (node.used, self._pushed, node))

    def _new(self, parent: Node, pages: list[Page]) -> HostNode:
        self._clock += 2  # the engine reads its clock twice for a new node
        node = HostNode(parent, pages, float(self._clock - 1))
        assert isinstance(parent, HostNode)
        parent.children[pages[0]] = node
        parent.below += 1
        return node

    def _split(self, lower: Node, at: int) -> HostNode:
        """Cut a node in two that are where it was; return the upper part."""
        assert isinstance(lower, HostNode)
        upper = super()._split(lower, at)
        assert isinstance(upper, HostNode)
        assert isinstance(upper.parent, HostNode)
        upper.on_device, upper.backed, upper.uses = lower.on_device, lower.backed, lower.uses
        upper.below = int(lower.on_device)
        upper.parent.below -= 1  # it is counted twice, or is not on the devices
        return upper
