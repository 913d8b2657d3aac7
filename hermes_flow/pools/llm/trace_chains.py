"""Cuts the block ids of a trace into chains of ids that always follow each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.llm.prefix_cache import Run
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.units import Ints


class TraceChains:
    """The prompt beginnings of a trace, as runs of chains of blocks of ``block_size`` tokens.

    A chain begins with an id that other ids come before in other prompts, or none; it is named by that id. So every
    run begins at the start of its chain.
    """

    __slots__ = ("_chains", "_covered", "_lengths", "_offsets", "_size")

    def __init__(self, prefixes: Prefixes, block_size: int) -> None:
        ids, starts = _whole_blocks(prefixes, block_size)
        parts = max(1, prefixes.block_tokens // block_size)
        heads = np.flatnonzero(_begins_chain(ids, starts))
        self._size = block_size
        self._covered: list[int] = (np.diff(prefixes.offsets) * prefixes.block_tokens).tolist()
        self._chains: list[int] = ids[heads].tolist()
        self._lengths: list[int] = (np.diff(heads, append=len(ids)) * parts).tolist()
        self._offsets: list[int] = np.searchsorted(heads, starts).tolist()

    def runs(self, request: int, prompt_tokens: int) -> list[Run]:
        """Return the full blocks that the ids of a request name within a prompt of ``prompt_tokens`` tokens."""
        left = min(prompt_tokens, self._covered[request]) // self._size
        runs: list[Run] = []
        place = self._offsets[request]
        while left > 0:
            length = min(self._lengths[place], left)
            runs.append((self._chains[place], 0, length))
            left -= length
            place += 1
        return runs


def _whole_blocks(prefixes: Prefixes, block_size: int) -> tuple[Ints, Ints]:
    """Return the ids that name whole blocks of ``block_size`` tokens, or parts of them, and where requests begin."""
    step = max(1, block_size // prefixes.block_tokens)
    if step == 1:
        return prefixes.ids, prefixes.offsets
    lengths = np.diff(prefixes.offsets)
    place = np.arange(len(prefixes.ids)) - np.repeat(prefixes.offsets[:-1], lengths)
    starts = np.concatenate(([0], np.cumsum(lengths // step)))
    return prefixes.ids[place % step == step - 1], starts


def _begins_chain(ids: Ints, starts: Ints) -> NDArray[np.bool_]:
    """Return, for each id, whether a chain begins with it.

    It does not where the id always stands behind one other, and nothing else ever stands behind that.
    """
    if not len(ids):
        return np.zeros(0, dtype=np.bool_)
    first = np.zeros(len(ids) + 1, dtype=np.bool_)
    first[starts] = True
    known, number = np.unique(ids, return_inverse=True)
    before = np.where(first[:-1], -1, np.roll(number, 1))
    only_before = _only(number, before, len(known))
    goes_on = np.flatnonzero(~first[1:])
    only_after = _only(number[goes_on], number[goes_on + 1], len(known))
    joined = only_before >= 0
    joined &= only_after[only_before] >= 0
    begins: NDArray[np.bool_] = ~joined[number]
    return begins


def _only(number: Ints, other: Ints, count: int) -> Ints:
    """Return, for each number below ``count``, the ``other`` that it always stands beside.

    −1 where there are several, or none.
    """
    least = np.full(count, np.iinfo(np.int64).max)
    most = np.full(count, -1)
    np.minimum.at(least, number, other)
    np.maximum.at(most, number, other)
    return np.where(least == most, least, -1)
