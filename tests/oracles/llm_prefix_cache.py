"""The KV blocks of one naive LLM client, each an object: who uses it, what it holds, when it is evicted.

These are the rules of prefix caching; together with those of chunked batching they reproduce every recorded
schedule of vLLM with prefix cache, hits included.

Keys. Block b of a sequence (tokens b·size … (b+1)·size − 1) has a key that stands for its content and all that
precedes it. The request brings the keys of its first full blocks, which other requests may have too: those of
its prompt, and where a later prompt begins with this one and its answer also those of the answer. Every block
beyond them, generated tokens included, has a key of its own: only the same request can find it again, after a
preemption. A key is a name; a block is an object that may be *keyed* (hold what a key names) or *blank*.

Blocks. Each block counts its users, the running sequences that hold it. Blocks without users make up the free
queue, in the beginning all of them, blank. A block in the free queue may be keyed: it is free to be taken and
free to be found.
- Taking n blocks pops n from the head of the free queue; each becomes blank (its key is forgotten *for this
  block*) and has one user.
- Sharing a block adds a user; one that had none leaves its place in the free queue.
- Releasing a sequence's blocks goes through them from last to first and takes a user off each. Of those left
  without one, the keyed are appended to the tail of the free queue, in this order (last block first); the
  blank are put before its head, in this order too (the last block becomes the head). So blank blocks are
  always taken before keyed ones (among themselves they are alike: only their number matters), and a
  sequence's end is evicted before its beginning.
- Finding: a key is held by the blocks that were keyed with it and not taken since. Several may hold it, when
  equal content was computed twice; none replaces the other. The one keyed first among them is found.

Hits. When a plan looks at a waiting request, its hits are the blocks found for its keys 0, 1, 2, … up to the
first that is not found, and never beyond block (length − 1) // size − 1: the last token of the present
sequence (prompt + generated tokens) is always computed. A preempted request is looked up the same way, its
generated blocks included. Hits are looked up anew each time a plan comes to the request, after all that this
plan did before: blocks keyed for a request admitted earlier in the same plan are found.

Admission. With H hits, U of them without users, the request is admitted if a seat is free and
ceil(length / size) − H + U ≤ blocks in the free queue: the blocks for its whole present sequence are there,
counting the hits that would leave the free queue. A refused lookup changes nothing. On admission the hits are
shared first; then computed = H·size, the chunk is min(length − computed, token budget left), it alone costs
budget, and new blocks are taken for it only: ceil((computed + chunk) / size) − H. In the cost of the step it
is a prefill of ``chunk`` tokens after H·size computed ones.
Under mixed and continuous batching the chunk is all that is missing, length − H·size, and that is what must
fit the budget. With preemption "none", ceil((prompt + output) / size) stands for ceil(length / size) in the
test, and that many blocks less the hits are taken on admission.

When blocks become keyed. Only full blocks whose tokens are all scheduled and all known do:
- in a plan, right after a sequence has got its tokens and blocks: the blank ones among its blocks that lie in
  its first min(computed, prompt + generated) tokens, ``computed`` including what was just scheduled and
  ``generated`` counting delivered tokens only. They can be found from then on, before their step has run.
- at the delivery of a token to a sequence that still runs (not to one preempted meanwhile): those that lie in
  its first computed − in_flight tokens, ``in_flight`` being the tokens not delivered yet, after this one.
  Without look-ahead this finds nothing new; with it, it does where the plan of the following step left the
  sequence out, above all when the token was its last. This comes before a finished sequence's release.
Under look-ahead a block that ends with a token in flight is thus keyed by the first plan that schedules the
sequence after the delivery, and stays blank if that plan preempts the sequence instead.

Release. A finished sequence releases its blocks at its last token's delivery; the deliveries of one step go
in the order in which its plan scheduled the sequences. A preempted one releases them at once in the plan,
before the next victim is looked for; ``computed`` becomes 0, and all it may keep are its keyed blocks, as long
as nobody takes them.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass


def each_block(runs: Iterable[tuple[Hashable, int, int]]) -> list[Hashable]:
    """Return a key for each block of runs of chains (chain, first block, last block + 1)."""
    return [(chain, block) for chain, first, last in runs for block in range(first, last)]


@dataclass(eq=False)
class Block:
    """One KV block; ``key`` names what it holds (None: blank), ``users`` counts the sequences that hold it."""

    number: int
    key: Hashable | None = None
    users: int = 0


class BlockPool:
    """All blocks of a client: the free queue in the order of eviction, and who holds what by key."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.free = [Block(number) for number in range(count)]
        self.holders: dict[Hashable, list[Block]] = {}  # in the order in which they were keyed

    @property
    def used(self) -> int:
        return self.count - len(self.free)

    def find(self, keys: Iterable[Hashable]) -> list[Block]:
        """Return the blocks that hold the longest prefix of ``keys``."""
        found = []
        for key in keys:
            if key not in self.holders:
                break
            found.append(self.holders[key][0])
        return found

    def share(self, blocks: list[Block]) -> None:
        """Give found blocks to one more sequence."""
        for block in blocks:
            if block.users == 0:
                self.free.remove(block)
            block.users += 1

    def take(self, count: int) -> list[Block]:
        """Take ``count`` blocks from the head of the free queue and blank them."""
        assert count <= len(self.free)
        taken = [self.free.pop(0) for _ in range(count)]
        for block in taken:
            if block.key is not None:
                self.holders[block.key].remove(block)
                if not self.holders[block.key]:
                    del self.holders[block.key]
                block.key = None
            block.users = 1
        return taken

    def release(self, blocks: list[Block]) -> None:
        """Take one user off all blocks of a sequence."""
        for block in blocks:
            block.users -= 1
        unused = [block for block in reversed(blocks) if block.users == 0]
        blank = [block for block in unused if block.key is None]
        keyed = [block for block in unused if block.key is not None]
        self.free = blank + self.free + keyed

    def remember(self, block: Block, key: Hashable) -> None:
        """Let a blank ``block`` be found by ``key``, after those that hold the same already."""
        assert block.key is None
        block.key = key
        self.holders.setdefault(key, []).append(block)
