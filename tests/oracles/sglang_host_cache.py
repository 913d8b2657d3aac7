"""A naive simulator of SGLang with its hierarchical cache, decision by decision, with no shortcuts.

It is written from a description in words. A node of the tree is on the devices, in the host, or on both. A use of a
node is a complete prompt or sequence that is given to the tree. ``computed`` writes a node at its first use,
``reused`` at its second, both only below a node that is written; ``evicted`` writes a node when it leaves the
devices, and the engine waits for that: all that it does later, it does after these writes. What the host has is
loaded, all or nothing, when a request that has memory is admitted. A node is held while it is written or loaded.
What has ended is noticed before requests are tried, and where the only sequence that runs has no memory.

With a ``Drive`` every page that was written to the host is then written there, once it is noticed that the first
write is over (an eviction's: at once). A request that has come looks for what devices and host lack, with the next
decision, if its match on the devices is in the host, too. One reader reads 128 pages at a time, request by request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from oracles.radix_tree import Node, RadixTree
from oracles.sglang_scheduler import Request, Settings, SGLangScheduler, Step


@dataclass
class Host:
    """Sizes in tokens, times in picoseconds for each token."""

    capacity: int
    write: str
    tier_ps: int
    link_ps: int
    latency_ps: int
    layers: int


@dataclass
class Drive:
    """Sizes in tokens, times in picoseconds."""

    capacity: int
    token_ps: int
    latency_ps: int
    policy: str
    least: int


@dataclass(eq=False)
class Reading:
    request: Request
    above: Place
    wanted: tuple[int, ...]
    found: int
    began: int
    done: int = 0
    over: bool = False


class Place(Node):
    """A node that knows where its tokens are."""

    def __init__(self, parent: Node | None, tokens: tuple[int, ...], used: float) -> None:
        super().__init__(parent, tokens, used)
        self.device = True
        self.host = False
        self.uses = 0
        self.kept = 0  # by who writes it to the drive, or reads behind it


class HostTree(RadixTree):
    def __init__(self, page: int, cache: SGLangWithHost) -> None:
        super().__init__(page)
        self.cache = cache

    def places(self) -> list[Place]:
        return [node for node in self.nodes if isinstance(node, Place)]

    @property
    def evictable(self) -> int:
        return sum(len(node.tokens) for node in self.places() if node.device and not node.holders)

    @property
    def in_host(self) -> int:
        reserved = sum(len(one.wanted[: one.found]) for one in self.cache.readings.values())
        return reserved + sum(len(node.tokens) for node in self.places() if node.host)

    def path(self, node: Node) -> tuple[int, ...] | None:
        """All tokens down to a node; None where a node above it is gone."""
        tokens: tuple[int, ...] = ()
        while node is not self.root:
            if node not in self.nodes:
                return None
            tokens = node.tokens + tokens
            assert node.parent is not None
            node = node.parent
        return tokens

    def add(self, above: Place, tokens: tuple[int, ...]) -> int:
        """Put tokens from the drive into the host, behind a node; return how many of them are new."""
        node: Node = above
        node.used = self._next()
        known = 0
        while known < len(tokens):
            child = node.children.get(tokens[known : known + self.page])
            if child is None:
                break
            child.used = self._next()
            same = self._common(child.tokens, tokens[known:])
            if same < len(child.tokens):
                child = self._split(child, same)
            node, known = child, known + same
        backed = node is self.root or (isinstance(node, Place) and node.host)
        if known == len(tokens) or not backed or self.path(node) is None:
            return 0
        new = self._new(node, tokens[known:])
        assert isinstance(new, Place)
        new.device, new.host = False, True
        return len(tokens) - known

    def insert_counted(self, tokens: Sequence[int], counts: bool) -> tuple[Node, int]:
        before = {id(node) for node in self.nodes if isinstance(node, Place) and node.device}
        node, known = self.root, 0
        node.used = self._next()
        there = 0
        while known < len(tokens):
            child = node.children.get(tuple(tokens[known : known + self.page]))
            if child is None:
                break
            child.used = self._next()
            same = self._common(child.tokens, tokens[known:])
            here = id(child) in before
            if same < len(child.tokens):
                child = self._split(child, same)
            assert isinstance(child, Place)
            if here:
                there += same
                self.use(child, counts)
            child.device = True
            node, known = child, known + same
        if known < len(tokens):
            node = self._new(node, tuple(tokens[known:]))
            assert isinstance(node, Place)
            self.use(node, counts)
        return node, there

    def use(self, node: Place, counts: bool) -> None:
        wanted = {"computed": 1, "reused": 2}.get(self.cache.h.write)
        if wanted is None or not counts:
            return
        node.uses += 1
        parent = node.parent
        above = parent is self.root or (isinstance(parent, Place) and parent.host)
        if node.uses >= wanted and not node.host and above:
            end = self.write(node)
            if node.host:
                self.hold(node, 1)
                self.cache.moving.append((end, node))
                self.cache.writes.add(node)

    def write(self, node: Place) -> int:
        size, h = len(node.tokens), self.cache.h
        if h.capacity - self.in_host < size:
            self.drop(size)
        if h.capacity - self.in_host < size:
            return 0
        node.host = True
        return self.cache.write(size)

    def drop(self, wanted: int) -> None:
        """The host forgets what it alone has, the oldest leaves first."""
        dropped = 0
        while dropped < wanted:
            leaves = [
                node for node in self.places() if not node.device and not node.children and not node.kept
            ]
            if not leaves:
                return
            leaf = min(leaves, key=lambda node: node.used)
            dropped += len(leaf.tokens)
            self.remove(leaf)

    def remove(self, node: Node) -> None:
        assert node.parent is not None
        del node.parent.children[node.tokens[: self.page]]
        self.nodes.remove(node)

    def evict(self, wanted: int) -> int:
        freed, waited_for = 0, list[tuple[int, Place]]()
        while freed < wanted:
            leaves = [
                node
                for node in self.places()
                if node.device
                and not node.holders
                and not any(child.device for child in node.children.values() if isinstance(child, Place))
            ]
            if not leaves:
                break
            leaf = min(leaves, key=lambda node: node.used)
            freed += len(leaf.tokens)
            if not leaf.host and self.cache.h.write == "evicted":
                end = self.write(leaf)
                self.cache.blocked = max(self.cache.blocked, end)
                if leaf.host:
                    leaf.kept += 1
                    waited_for.append((end, leaf))
            leaf.device = False
            if not leaf.host:
                self.remove(leaf)
        for end, leaf in waited_for:
            self.cache.go_to(end)
            if self.cache.drive is None:
                leaf.kept -= 1
            else:
                self.cache.save(leaf)
        return freed

    def _new(self, parent: Node, tokens: tuple[int, ...]) -> Node:
        node = Place(parent, tokens, self._next())
        self._next()
        parent.children[tokens[: self.page]] = node
        self.nodes.append(node)
        return node

    def _split(self, lower: Node, at: int) -> Node:
        upper = super()._split(lower, at)
        assert isinstance(upper, Place)
        assert isinstance(lower, Place)
        upper.device, upper.host, upper.uses = lower.device, lower.host, lower.uses
        return upper


class SGLangWithHost(SGLangScheduler):
    """``loaded`` has the tokens that each admitted request got from the host, ``written`` all that went there."""

    def __init__(
        self, settings: Settings, requests: list[Request], host: Host, drive: Drive | None = None
    ) -> None:
        super().__init__(settings, requests)
        self.drive = drive
        self.coming: list[Request] = []
        self.readings: dict[int, Reading] = {}
        self.reader: list[Reading] = []
        self.batch: tuple[int, int] | None = None  # its end and its tokens
        self.reader_free = self.drive_free = 0
        self.on_drive: dict[tuple[int, ...], int] = {}  # all tokens down to a page → when it is there
        self.saving: list[tuple[int, Place]] = []
        self.writes: set[Node] = set()
        self.fetched: dict[int, int] = {}
        self.from_disk: dict[int, int] = {}
        self.read = self.saved = 0
        self.h = host
        self.at = self.blocked = 0
        self.tier_free = self.out_free = self.in_free = 0
        self.moving: list[tuple[int, Node]] = []
        self.least_free = 0  # below 0 where the engine would have aborted a request
        self.hosted = HostTree(self.p, self)
        self.tree = self.hosted
        self.loads: list[Node] = []
        self.load_tokens = self.load_end = 0
        self.loaded: dict[int, int] = {}
        self.written = 0

    # Time

    def run(self) -> None:
        coming = 0
        while True:
            now = self.at
            while coming < len(self.requests) and self.requests[coming].arrival <= now:
                self.waiting.append(self.requests[coming])
                self.coming.append(self.requests[coming])
                coming += 1
            self.load_end = 0
            self.go_to(now)
            step = self.decide()
            self.begin_loads()
            self.last = step
            before = self.in_flight
            if step is not None:
                start = now if before is None else before.start + before.duration
                self.time(step, max(start, self.blocked), self.at)
                self.steps.append(step)
            if not self.s.overlap:
                before, self.in_flight = step, None
            else:
                self.in_flight = step
            if before is not None:
                self.go_to(max(self.at, before.start + before.duration))
                self.deliver(before, self.at)
            if before is not None or step is not None:
                continue
            idle = not self.waiting and not self.running and self.chunked is None
            if idle:
                self.ratio = self.first_ratio
            ends = [] if idle else [end for end, _ in self.moving] + self.drive_ends()
            nexts = ends + [request.arrival for request in self.requests[coming:]]
            if not nexts:
                return
            self.at = max(self.at, min(nexts))

    def time(self, step: Step, start: int, now: int) -> None:
        """A layer runs after the layer before it, and when its part of the load is here."""
        tokens = sum(count for _, count in step.tokens)
        whole = self.s.fixed + self.s.per_token * tokens + self.s.per_context * step.context
        layers, at = self.h.layers, Fraction(start)
        for layer in range(1, layers + 1):
            if self.load_end:
                at = max(at, now + Fraction(layer * (self.load_end - now), layers))
            at += Fraction(whole, layers)
        step.start, step.duration = start, math.ceil(at) - start
        step.epochs = {request: request.epoch for request, _ in step.tokens}

    def write(self, tokens: int) -> int:
        self.written += tokens
        self.tier_free = max(self.at, self.tier_free) + tokens * self.h.tier_ps
        self.out_free = max(self.at, self.out_free) + tokens * self.h.link_ps
        return max(self.tier_free, self.out_free)

    def begin_loads(self) -> None:
        """All loads of a decision are one."""
        if not self.loads:
            return
        tokens = self.load_tokens
        self.tier_free = max(self.at, self.tier_free) + self.h.latency_ps + tokens * self.h.tier_ps
        self.in_free = max(self.at + self.h.latency_ps, self.in_free) + tokens * self.h.link_ps
        self.load_end = max(self.tier_free, self.in_free)
        self.moving += [(self.load_end, node) for node in self.loads]
        self.loads, self.load_tokens = [], 0

    # The drive

    def decide(self) -> Step | None:
        if self.drive is not None:
            for request in self.coming:
                self.seek(request)
            self.coming = []
        step = super().decide()
        self.least_free = min(self.least_free, self.free)
        if self.drive is not None:
            self.coming += [one for one in self.waiting if one.number in self.retracted]
        return step

    def go_to(self, now: int) -> None:
        """Read until now: each batch begins at the end of the one before it, or when it is asked for."""
        self.at = now
        while self.drive is not None:
            if self.batch is not None:
                if self.batch[0] > now:
                    return
                self.reader_free = self.batch[0]
                self.reader[0].done += self.batch[1]
                self.batch = None
            self.reader = [one for one in self.reader if not one.over and one.done < one.found]
            if not self.reader:
                return
            first = self.reader[0]
            begin, tokens = max(self.reader_free, first.began), min(128 * self.p, first.found - first.done)
            self.drive_free = (
                max(begin, self.drive_free) + self.drive.latency_ps + tokens * self.drive.token_ps
            )
            self.tier_free = max(begin, self.tier_free) + tokens * self.h.tier_ps
            self.batch = max(self.drive_free, self.tier_free), tokens
            self.read += tokens

    def pages(self, before: tuple[int, ...], tokens: Sequence[int]) -> list[tuple[int, ...]]:
        whole = before + tuple(tokens)
        return [whole[:end] for end in range(len(before) + self.p, len(whole) + 1, self.p)]

    def renew(self, pages: list[tuple[int, ...]]) -> None:
        for page in reversed(pages):
            if page in self.on_drive:
                self.on_drive[page] = self.on_drive.pop(page)

    def save(self, node: Place) -> None:
        assert self.drive is not None
        path = self.hosted.path(node)
        if path is None:
            node.kept -= 1
            return
        pages = self.pages(path[: len(path) - len(node.tokens)], node.tokens)
        new = [page for page in pages if page not in self.on_drive][: self.drive.capacity // self.p]
        while (len(self.on_drive) + len(new)) * self.p > self.drive.capacity // self.p * self.p:
            del self.on_drive[next(iter(self.on_drive))]
        end = self.at
        if new:
            tokens = len(new) * self.p
            self.drive_free = max(self.at, self.drive_free) + tokens * self.drive.token_ps
            self.tier_free = max(self.at, self.tier_free) + tokens * self.h.tier_ps
            end = max(self.drive_free, self.tier_free)
            self.saved += tokens
        self.on_drive |= dict.fromkeys(new, end)
        self.renew(pages)
        self.saving.append((end, node))

    def seek(self, request: Request) -> None:
        assert self.drive is not None
        node, _, end, known = self.matched(request.content[: request.length - 1])
        assert end is self.tree.root or isinstance(end, Place)
        if isinstance(node, Place) and not node.host:
            return
        wanted = tuple(request.content[known : self.down(request.length)])
        devices = self.s.max_total_num_tokens // self.p * self.p
        most = int(0.8 * (self.h.capacity - devices))
        if len(wanted) < max(self.drive.least, self.p):
            return
        if sum(len(one.wanted) for one in self.readings.values()) >= most:
            return
        above: Any = end
        if isinstance(end, Place):
            end.kept += 1
        if self.h.capacity - self.hosted.in_host < len(wanted):
            self.hosted.drop(len(wanted))
        room = self.h.capacity - self.hosted.in_host >= len(wanted)
        path = self.hosted.path(end)
        pages: list[tuple[int, ...]] = []
        if room and path is not None:
            for page in self.pages(path, wanted):
                if page not in self.on_drive or self.on_drive[page] > self.at:
                    break
                pages.append(page)
            self.renew(pages)
        if len(pages) * self.p < max(self.drive.least, self.p):
            if isinstance(end, Place):
                end.kept -= 1
            return
        reading = Reading(request, above, wanted, len(pages) * self.p, self.at)
        self.readings[request.number] = reading
        self.reader.append(reading)
        self.reader_free = max(self.reader_free, self.at) if self.batch is None else self.reader_free
        self.go_to(self.at)

    def waits(self, request: Request) -> bool:
        reading = self.readings.get(request.number)
        if reading is None:
            return False
        assert self.drive is not None
        patient = self.drive.policy == "wait_complete"
        patient |= self.drive.policy == "timeout" and self.at <= self.patience(reading)
        if patient and reading.done < reading.found:
            return True
        del self.readings[request.number]
        reading.over = True
        new = self.hosted.add(reading.above, reading.wanted[: reading.done])
        if isinstance(reading.above, Place):
            reading.above.kept -= 1
        if new:
            self.fetched[request.number] = new
        return False

    def patience(self, reading: Reading) -> int:
        return reading.began + 10**12 + reading.found * (10**12 // 4) // 1024

    def drive_ends(self) -> list[int]:
        assert self.drive is not None or not self.saving
        ends = [end for end, _ in self.saving[:1]]
        if self.batch is not None:
            ends.append(self.batch[0])
        if self.drive is not None and self.drive.policy == "timeout":
            ends += [self.patience(one) + 1 for one in self.readings.values() if one.done < one.found]
        return [end for end in ends if end > self.at]

    # The tree

    def publish(self, request: Request, tokens: int) -> None:
        whole = self.down(tokens)
        content = request.present[:whole]
        node, there = self.hosted.insert_counted(content, request is not self.chunked)
        self.free += there - request.protected
        prompt = self.down(request.prompt)
        if 0 < prompt < whole:
            self.hosted.insert_counted(content[:prompt], False)
            node, _ = self._end_of(content)
        self.tree.hold(node, 1)
        self.tree.hold(request.node, -1)
        request.node = node
        request.protected = whole

    def matched(self, tokens: Sequence[int]) -> tuple[Node, int, Node, int]:
        """Return the end and the length of what the devices have, and of what they and the host have."""
        end, known = self.tree.match(tokens)
        node, on_devices = end, known
        while isinstance(node, Place) and not node.device:
            on_devices -= len(node.tokens)
            assert node.parent is not None
            node = node.parent
        return node, on_devices, end, known

    # Admission

    def before_decode(self) -> None:
        """Notice writes before each step of decodes alone, as ``flush_write_through_acks`` does."""
        for end, node in [one for one in self.moving if one[0] <= self.at and one[1] in self.writes]:
            self.moving.remove((end, node))
            self.noticed_write(node)

    def noticed_write(self, node: Node) -> None:
        self.tree.hold(node, -1)
        self.writes.remove(node)
        if self.drive is not None:
            assert isinstance(node, Place)
            node.kept += 1
            self.save(node)

    def notice(self) -> None:
        self.before_decode()
        for end, node in [one for one in self.moving if one[0] <= self.at]:
            self.tree.hold(node, -1)
            self.moving.remove((end, node))
        while self.saving and self.saving[0][0] <= self.at:
            self.saving.pop(0)[1].kept -= 1

    def sort_waiting(self) -> None:
        self.notice()
        if self.s.schedule_policy == "fcfs":
            super().sort_waiting()
            return
        kept: list[Request] = []
        keys: dict[Request, tuple[bool, int]] = {}
        for request in self.waiting:
            _, match, _, known = self.matched(request.present)
            off = False
            if match <= 32:
                tokens = request.present[:32]
                if len(tokens) == 32 and any(other.present[:32] == tokens for other in kept):
                    off = True
                else:
                    kept.append(request)
            keys[request] = (off, -min(known, request.length - 1))
        self.waiting.sort(key=lambda r: (True, 0) if keys[r][0] else keys[r])

    def admit(self, picked: list[tuple[Request, int]], ends: dict[Request, bool], seats: int) -> None:
        verdict = self.verdict()
        for request in list(self.waiting):
            if verdict == "stop":
                break
            if len(picked) >= seats:
                self.full = True
            if self.full:
                break
            if self.waits(request):
                continue
            node, prefix, end, known = self.matched(request.content[: request.length - 1])
            self.tree.hold(node, 1)
            left, hit = request.length - prefix, known - prefix
            need = left + min(request.limit - request.out, 4096) + self.p
            part: int | str
            loaded = 0
            if need >= self.room - self.all:
                part = "memory"
            elif self.chunk is None and picked and self.up(left - hit) >= self.tokens:
                part = "stop"
            else:
                if hit >= 10:
                    loaded = self.load(end, hit)
                if loaded:
                    self.tree.hold(end, 1)
                    self.tree.hold(node, -1)
                    node, prefix, left = end, prefix + loaded, left - loaded
                part = self.cut(prefix, left, bool(picked))
            if isinstance(part, str):
                self.tree.hold(node, -1)
                verdict = part
            else:
                request.node, request.protected, request.computed = node, prefix, prefix
                if request.cached is None:
                    request.cached = prefix
                if loaded and request.number not in self.loaded:
                    own = min(loaded, self.fetched.get(request.number, 0))
                    self.loaded[request.number], self.from_disk[request.number] = loaded - own, own
                ends[request] = part == left
                self.charge(part, min(request.limit, 4096) if part == left else 0)
                if part < left:
                    self.chunked = request
                picked.append((request, part))
                self.waiting.remove(request)
                verdict = self.verdict()
            if verdict == "memory":
                self.full = bool(picked) or bool(self.running)
            if verdict != "go":
                break

    def cut(self, prefix: int, left: int, somebody: bool) -> int | str:
        if self.chunk is None:
            return "stop" if somebody and self.up(left) >= self.tokens else left
        if self.up(left) <= self.chunk:
            return left
        part = self.down(prefix + self.down(self.chunk)) - prefix
        return part if part > 0 else "stop"

    def load(self, end: Node, tokens: int) -> int:
        if self.free < tokens:
            self.free += self.tree.evict(tokens)
        if self.free < tokens or end not in self.tree.nodes:
            return 0
        self.free -= tokens
        node: Node | None = end
        while isinstance(node, Place) and not node.device:
            node.device = True
            node = node.parent
        self.tree.hold(end, 1)
        self.loads.append(end)
        self.load_tokens += tokens
        return tokens
