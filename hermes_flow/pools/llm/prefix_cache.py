"""Holds the KV blocks of one LLM client that can be found by their content, and evicts them in vLLM's order.

The rules are those of vLLM V1's block pool. A block that nobody holds waits in a queue and keeps its content
until its turn comes; a hit takes it out of the queue. A sequence that leaves returns its last block first;
blocks without full, known content go to the head of the queue, the others to its end.

Blocks are not kept one by one. A *chain* is a row of blocks that follow each other in the same content, and a prompt
is a list of *runs* of chains. Blocks of a chain that have the same number of holders, or wait in the queue one behind
the other, are one *piece*: it is cut where its blocks part and joined again where they meet. Most blocks hold what no
other request will ask for: they are counted, not named.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

Run: TypeAlias = tuple[Hashable, int, int]  # blocks ``first`` … ``last − 1`` of a chain: (chain, first, last)


class Piece:
    """Blocks ``first`` … ``last − 1`` of a copy, all held by ``holders`` sequences; or blocks that nobody can find.

    ``before`` and ``after`` are its neighbours in the queue, where nobody holds it.
    """

    __slots__ = ("after", "before", "copy", "first", "holders", "last")

    def __init__(self, copy: Copy | None, first: int, last: int, holders: int) -> None:
        self.copy = copy
        self.first = first
        self.last = last
        self.holders = holders
        self.before: Piece = self
        self.after: Piece = self


class Copy:
    """Blocks that hold some part of a chain, as ``pieces`` in order."""

    __slots__ = ("chain", "pieces")

    def __init__(self, chain: Hashable) -> None:
        self.chain = chain
        self.pieces: list[Piece] = []

    def covers(self, at: int) -> int:
        """Return up to which block it holds all blocks from ``at`` on; ``at`` where it does not hold that."""
        for piece in self.pieces:
            if piece.first > at:
                break
            if piece.last > at:
                at = piece.last
        return at

    def next_from(self, at: int) -> int | None:
        """Return the first block from ``at`` on that it holds."""
        return next((max(piece.first, at) for piece in self.pieces if piece.last > at), None)


Part: TypeAlias = tuple[Copy, int, int]  # blocks ``first`` … ``last − 1`` of a copy


def common_blocks(runs: Sequence[Run], others: Sequence[Run]) -> int:
    """Return how many blocks two contents have in common at their beginning."""
    total = 0
    for (chain, first, last), (other, begin, end) in zip(runs, others, strict=False):
        if chain != other or first != begin:
            break
        total += min(last, end) - first
        if last != end:
            break
    return total


class Held:
    """The findable blocks of one sequence: its first ``blocks``, as parts of copies in order."""

    __slots__ = ("blocks", "parts")

    def __init__(self) -> None:
        self.blocks = 0
        self.parts: list[Part] = []

    def add(self, copy: Copy, first: int, last: int) -> None:
        """Add the blocks that follow."""
        self.blocks += last - first
        parts = self.parts
        if parts and parts[-1][0] is copy and parts[-1][2] == first:
            parts[-1] = (copy, parts[-1][1], last)
        else:
            parts.append((copy, first, last))

    def first(self, blocks: int) -> Held:
        """Return the first ``blocks`` of them."""
        some = Held()
        for copy, first, last in self.parts:
            if some.blocks < blocks:
                some.add(copy, first, min(last, first + blocks - some.blocks))
        return some


class BlockStore:
    """``count`` blocks; no sequence holds ``free`` of them.

    ``copies`` has the copies of each chain of which any block can be found. Of copies of the same block, the one
    that was remembered first stands first.
    """

    __slots__ = ("_blank", "_queue", "copies", "free")

    def __init__(self, count: int) -> None:
        self.free = count
        self._blank = count  # free blocks without content: always the next to be taken
        self._queue = Piece(
            None, 0, 0, 0
        )  # a ring: after it the next piece to be evicted, before it the last one
        self.copies: dict[Hashable, list[Copy]] = {}

    def hits(self, runs: Sequence[Run], limit: int) -> Held:
        """Return the blocks that hold the longest prefix of ``runs``, at most ``limit`` blocks."""
        found = Held()
        copies = self.copies
        for chain, first, last in runs:
            of_chain = copies.get(chain)
            if of_chain is None:
                break
            last = min(last, first + limit - found.blocks)
            if self._find(of_chain, first, last, found) < last:
                break
        return found

    def hits_of(self, chain: Hashable, limit: int) -> tuple[Held, int]:
        """Return the first blocks of a chain that are found, at most ``limit``, and how many of them nobody holds.

        It must be a chain of which any block can be found.
        """
        copies = self.copies[chain]
        pieces = copies[0].pieces
        piece = pieces[0]
        if len(pieces) > 1 or len(copies) > 1 or piece.first or limit <= 0:
            hits = self.hits(((chain, 0, limit),), limit)
            return hits, self.idle(hits)
        hits = Held()
        hits.blocks = last = piece.last if piece.last < limit else limit
        hits.parts.append((copies[0], 0, last))
        return hits, 0 if piece.holders else last

    def idle(self, held: Held) -> int:
        """Return how many of these blocks no sequence holds."""
        total = 0
        for copy, first, last in held.parts:
            for piece in copy.pieces:
                if not piece.holders and piece.first < last and piece.last > first:
                    total += min(piece.last, last) - max(piece.first, first)
        return total

    def share(self, held: Held) -> None:
        """Let one more sequence hold these blocks."""
        for copy, first, last in held.parts:
            pieces = copy.pieces
            alone = len(pieces) == 1 and pieces[0].first == first and pieces[0].last == last  # most often
            for piece in pieces if alone else self._cut_out(copy, first, last):
                if not piece.holders:
                    leave_queue(piece)
                    self.free -= piece.last - piece.first
                piece.holders += 1
            if not alone:
                _join(copy)

    def take(self, count: int) -> None:
        """Take ``count`` free blocks in order of eviction; their content can no longer be found."""
        self.free -= count
        if count <= self._blank:
            self._blank -= count
            return
        count -= self._blank
        self._blank = 0
        queue = self._queue
        while count:
            piece = queue.after
            blocks = piece.last - piece.first
            if blocks > count:
                piece.last -= count
                return
            count -= blocks
            leave_queue(piece)
            if piece.copy is not None:
                self._forget(piece.copy, piece)

    def remember(self, held: Held, runs: Sequence[Run], blocks: int) -> None:
        """Make the first ``blocks`` blocks of a sequence findable as ``runs``, behind others of the same content.

        ``held`` are those that can be found already; it grows.
        """
        begin, start = held.blocks, 0
        for chain, first, last in runs:
            if start >= blocks:
                return
            stop = start + last - first
            if stop > begin:
                at = first + max(begin - start, 0)
                end = first + min(stop, blocks) - start
                if end > at:
                    held.add(self._named(chain, at, end), at, end)
            start = stop

    def name(self, held: Held, chain: Hashable, last: int) -> None:
        """Make the blocks of a sequence up to ``last``, all of one chain, findable; see ``remember``."""
        first, parts, copies = held.blocks, held.parts, self.copies.get(chain)
        if copies is None and not first:
            copy = Copy(chain)
            copy.pieces.append(Piece(copy, 0, last, 1))
            self.copies[chain] = [copy]
            held.blocks = last
            parts.append((copy, 0, last))
            return
        if copies is not None and len(copies) == 1 and parts and parts[-1][0] is copies[0]:
            copy = copies[0]
            piece = copy.pieces[-1]
            if piece.last == first and piece.holders == 1:
                piece.last = held.blocks = last
                parts[-1] = (copy, parts[-1][1], last)
                return
        held.add(self._named(chain, first, last), first, last)

    def leave(self, chain: Hashable, last: int, unnamed: int, blank: int) -> None:
        """Let a sequence go of the first ``last`` blocks of a chain, which get their name now; see ``release``."""
        if chain in self.copies:
            held = Held()
            self.name(held, chain, last)
            self.release(held, unnamed, blank)
            return
        self._blank += blank
        self.free += blank + unnamed + last
        if unnamed:
            self._queue_unnamed(unnamed)
        copy = Copy(chain)
        self.copies[chain] = [copy]
        piece = Piece(copy, 0, last, 0)
        copy.pieces.append(piece)
        _enter_queue(piece, self._queue)

    def release(self, held: Held, unnamed: int, blank: int) -> None:
        """Let a sequence go of the blocks ``held``, of ``unnamed`` full ones after them, and of ``blank`` ones."""
        self._blank += blank
        self.free += blank + unnamed
        if unnamed:
            self._queue_unnamed(unnamed)
        for copy, first, last in reversed(held.parts):
            pieces = copy.pieces
            piece = pieces[0]
            if len(pieces) == 1 and piece.first == first and piece.last == last:  # most often
                piece.holders -= 1
                if not piece.holders:
                    self.free += last - first
                    _enter_queue(piece, self._queue)
                continue
            for piece in reversed(self._cut_out(copy, first, last)):
                piece.holders -= 1
                if not piece.holders:
                    self.free += piece.last - piece.first
                    self._queue_piece(copy, piece)
            _join(copy)

    def _find(self, copies: list[Copy], first: int, last: int, found: Held) -> int:
        """Add what holds the blocks of a chain from ``first`` on; return up to where all of them are found."""
        at = first
        if len(copies) == 1:
            at = min(copies[0].covers(first), last)
            if at > first:
                found.add(copies[0], first, at)
            return at
        while at < last:
            earlier: list[Copy] = []
            for copy in copies:
                end = min(copy.covers(at), last)
                if end > at:
                    break
                earlier.append(copy)
            else:
                return at
            for other in earlier:
                begin = other.next_from(at)
                end = end if begin is None else min(end, begin)
            found.add(copy, at, end)
            at = end
        return at

    def _named(self, chain: Hashable, first: int, last: int) -> Copy:
        """Name blocks that one sequence holds: as the rest of a copy, or as another copy of what is held already."""
        copies = self.copies.setdefault(chain, [])
        goes_on: Copy | None = None
        for copy in copies:
            end = copy.pieces[-1].last
            if end == first:
                goes_on = copy
            elif end > first and any(piece.first < last and piece.last > first for piece in copy.pieces):
                goes_on = None
                break
        if goes_on is None:
            goes_on = Copy(chain)
            copies.append(goes_on)
        pieces = goes_on.pieces
        if pieces and pieces[-1].holders == 1 and pieces[-1].last == first:
            pieces[-1].last = last
        else:
            pieces.append(Piece(goes_on, first, last, 1))
        return goes_on

    def _cut_out(self, copy: Copy, first: int, last: int) -> list[Piece]:
        """Return the pieces of blocks ``first`` … ``last − 1`` alone, after cutting those that hold others too."""
        pieces = copy.pieces
        place = 0
        while pieces[place].last <= first:
            place += 1
        if pieces[place].first < first:
            _cut(copy, place, first)
            place += 1
        begin = place
        while place < len(pieces) and pieces[place].last <= last:
            place += 1
        if place < len(pieces) and pieces[place].first < last:
            _cut(copy, place, last)
            place += 1
        return pieces[begin:place]

    def _queue_unnamed(self, blocks: int) -> None:
        end = self._queue.before
        if end.copy is None and end is not self._queue:
            end.last += blocks
        else:
            _enter_queue(Piece(None, 0, blocks, 0), self._queue)

    def _queue_piece(self, copy: Copy, piece: Piece) -> None:
        """Put a piece at the queue's end; it is evicted from its last block on, so it joins the one that goes on."""
        end = self._queue.before
        if end.copy is copy and end.first == piece.last:
            end.first = piece.first
            copy.pieces.remove(piece)
        else:
            _enter_queue(piece, self._queue)

    def _forget(self, copy: Copy, piece: Piece) -> None:
        copy.pieces.remove(piece)
        if copy.pieces:
            return
        copies = self.copies[copy.chain]
        copies.remove(copy)
        if not copies:
            del self.copies[copy.chain]


def _cut(copy: Copy, place: int, at: int) -> None:
    """Cut a piece in two before block ``at``; in the queue, the second half comes first."""
    left = copy.pieces[place]
    right = Piece(copy, at, left.last, left.holders)
    left.last = at
    copy.pieces.insert(place + 1, right)
    if not left.holders:
        _enter_queue(right, left)


def _join(copy: Copy) -> None:
    """Join neighbours that the same number of sequences hold."""
    pieces = copy.pieces
    place = len(pieces) - 1
    while place > 0:
        left, right = pieces[place - 1], pieces[place]
        if left.holders and left.holders == right.holders and left.last == right.first:
            left.last = right.last
            del pieces[place]
        place -= 1


def _enter_queue(piece: Piece, behind: Piece) -> None:
    """Put a piece into the queue, before the piece ``behind`` it."""
    before = behind.before
    before.after = behind.before = piece
    piece.before, piece.after = before, behind


def leave_queue(piece: Piece) -> None:
    """Take a piece out of the queue."""
    piece.before.after = piece.after
    piece.after.before = piece.before
    piece.before = piece.after = piece
