"""The first stage of TensorRT-LLM's scheduler: which of the active requests have memory for the next step."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Listed

from hermes_flow.pools.llm.tensorrt_llm.block_pool import BlockPool
from hermes_flow.pools.llm.tensorrt_llm.sequence import Sequence


class Coming:
    """The names of the blocks that prompts are about to compute."""

    def __init__(self, pool: BlockPool, computing: Iterable[Sequence]) -> None:
        self._pool = pool
        self.names: set[int] = set()
        for sequence in computing:
            self.add(sequence)

    def add(self, sequence: Sequence) -> None:
        """Take note of a prompt that is chosen, or in the middle of its chunks."""
        if self._pool.reuses:
            self.names.update(sequence.names[: sequence.length // self._pool.size])


def guaranteed(
    active: Listed[Sequence], pool: BlockPool, most: int, coming: Coming, *, static: bool
) -> list[Sequence]:
    """Return those that have the memory for all that they may write; nobody is ever paused.

    Those that generate come first. Then prompts follow in order; the first that lacks memory ends the list. With
    ``static`` there are prompts only if nobody generates.
    """
    chosen = [one for one in active if one.generating][:most]
    left = pool.available - sum([to_its_end(pool, one) for one in chosen])
    if static and chosen:
        return chosen
    for one in active:
        if one.generating:
            continue
        if len(chosen) == most:
            break
        if pool.waits_for(one, coming.names):
            continue
        needed = to_its_end(pool, one)
        if needed > left:
            break
        left -= needed
        chosen.append(one)
        coming.add(one)
    return chosen


def most_utilized(
    active: Listed[Sequence], pool: BlockPool, most: int, coming: Coming
) -> tuple[list[Sequence], list[Sequence]]:
    """Return those that have the memory of one step, in order, and those that are paused to make room for them.

    Where one lacks memory, the last one at or behind it that has begun is paused, and the list ends before that.
    """
    listed = list(active)
    chosen: list[Sequence] = []
    paused: list[Sequence] = []
    place = taken = 0
    while place < len(listed) and len(chosen) < most:
        one = listed[place]
        if pool.waits_for(one, coming.names):
            place += 1
            continue
        needed = of_one_step(pool, one)
        if needed <= pool.available - taken:
            taken += needed
            chosen.append(one)
            if not one.generating:
                coming.add(one)
            place += 1
            continue
        last = next((at for at in range(len(listed) - 1, place - 1, -1) if listed[at].begun), None)
        if last is None:
            break
        pool.give_back(listed[last])
        paused.append(listed[last])
        del listed[last:]
    return chosen, paused


def to_its_end(pool: BlockPool, sequence: Sequence) -> int:
    """Return the blocks that a sequence may still ask for, up to the limit of its answer."""
    return pool.whole(sequence.prompt + sequence.limit) - sequence.held


def of_one_step(pool: BlockPool, sequence: Sequence) -> int:
    """Return the blocks that the next step of a sequence asks for: at its beginning those of the whole prompt."""
    if not sequence.begun:
        return pool.whole(sequence.length)
    return max(0, pool.whole(sequence.computed + 1) - sequence.held) if sequence.generating else 0
