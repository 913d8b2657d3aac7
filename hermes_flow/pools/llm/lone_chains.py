"""Finds the tasks whose blocks, as far as any prompt may contain them, belong to one chain.

The turns of an agent are such tasks: each prompt begins with the prompt and the answer before it, and nothing else
has that content. So are prompts that begin with a retrieved context and have nothing else in common with others.
``PoolContent`` knows the content of all tasks, and looks it up task by task; here it is a column.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.columns import Column, column, fill
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.ops import Op
from hermes_flow.program.units import Ints
from hermes_flow.program.work import EarlierPrompt

NOBODY = -1  # no other prompt contains any of the blocks
SEVERAL = -2  # the blocks belong to several chains, or to one of another name
_NO_LIMIT = 1 << 60


class LoneChains:
    """The chain of each task, as columns by task.

    Its name is (``first``, ``name``): the op that it is named after and the request, or a retrieval (``retrieved``)
    and the context. ``first`` may also be NOBODY, or SEVERAL. The first ``limit`` tokens of a prompt and its answer
    are those that other prompts may contain. ``one_by_one`` is 1 where the tasks of a chain follow each other, so
    that nobody asks for it while one of them runs.
    """

    __slots__ = ("first", "limit", "name", "one_by_one")

    def __init__(self, count: int) -> None:
        self.first: Column = column(count, SEVERAL)
        self.limit: Column = column(count, 0)
        self.name: Column = column(count, 0)
        self.one_by_one = bytearray(count)


def retrieved(ops: int, retrieval: int) -> int:
    """Return what stands for a retrieval in the names of chains, of a program with so many ops."""
    return ops + retrieval


class OwnConversations:
    """The ops of a program whose prompts begin with an earlier prompt of the same request, or with nothing.

    ``extends`` tells by op which prompts it may begin with, ``extended`` are those that any prompt begins with,
    ``extenders`` those that may go on from prompt and answer, in order. ``lengths`` has by op the tokens of prompts,
    0 where a request does not take the op, and those of answers.
    """

    def __init__(
        self,
        ops: Sequence[Op],
        requests: int,
        extends: Mapping[int, EarlierPrompt],
        extenders: Mapping[int, Sequence[int]],
        lengths: Mapping[int, tuple[list[int], list[int]]],
    ) -> None:
        self._ops = ops
        self._requests = requests
        self._extends = extends
        self._extenders = extenders
        self._lengths = {number: (np.array(one), np.array(two)) for number, (one, two) in lengths.items()}
        self._before: dict[int, NDArray[np.int64]] = {}
        self._first: dict[int, NDArray[np.int64]] = {}
        self._left_by: dict[int, tuple[int, NDArray[np.bool_]]] = {}

    def chains(self, numbers: Sequence[int], prompt: Sequence[int]) -> LoneChains:
        """Return the chains of the tasks of a pool that serves the ops ``numbers`` and has these prompts."""
        count = self._requests
        found = LoneChains(len(numbers) * count)
        one_by_one = self._one_by_one(numbers)
        for place, number in enumerate(numbers):
            prompts = np.array(prompt[place * count : (place + 1) * count])
            first, limit, name = self._op(number, prompts)
            fill(found.first, place * count, first)
            fill(found.limit, place * count, limit)
            fill(found.name, place * count, name)
            if number in one_by_one:
                own = (first < len(self._ops)).astype(np.uint8)  # contexts may be asked for at any time
                found.one_by_one[place * count : (place + 1) * count] = own.tobytes()
        return found

    def _op(self, number: int, prompts: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the chain of each request's task of an op, its limit, and its name."""
        name = np.arange(self._requests)
        if number in self._lengths:
            return self._first_of(number), np.full(self._requests, _NO_LIMIT), name
        first, limit = np.full(self._requests, NOBODY), np.zeros(self._requests, dtype=np.int64)
        op = self._ops[number]
        if op.generate is not None and op.context is not None:
            lookup, taken = self._ops[op.context.source].work, self._ops[op.context.source].taken
            assert isinstance(lookup, KVLookup)
            if lookup.added and lookup.key is not None:
                here = np.ones(self._requests, dtype=np.bool_) if taken is None else taken
                first = np.where(here, retrieved(len(self._ops), op.context.source), first)
                limit = np.where(here, lookup.tokens, limit)
                name = np.where(here, lookup.key, name)
        before, extends = self._before_of(number), self._extends.get(number)
        for source in () if extends is None else extends.sources:
            begins = before == source
            known, answer = self._lengths[source]
            if extends is not None and extends.answer:
                known = known + answer
            first = np.where(begins, self._first_of(source), first)
            limit = np.where(begins, np.minimum(known, prompts), limit)
            name = np.where(begins, np.arange(self._requests), name)
        return first, limit, name

    def _one_by_one(self, numbers: Sequence[int]) -> set[int]:
        """Return the ops all of whose conversation begin only when the one before them has ended."""
        ops = self._ops
        if any(op.at_token is not None for op in ops):  # it begins while the answer before it is written
            return set()
        before: list[int] = []  # by op, a bit for each op that has ended when it begins
        for op in ops:
            bits = 0
            for other in op.after:
                bits |= before[other] | 1 << other
            before.append(bits)
        conversations: dict[int, list[int]] = {}
        root: dict[int, int] = {}
        for number in sorted({*self._lengths, *numbers}):
            extends = self._extends.get(number)
            sources = () if extends is None else extends.sources
            parts = {root[source] for source in sources}
            own = root[number] = min(parts, default=number)
            members = conversations.setdefault(own, [])
            for other in parts - {own}:
                for member in conversations[other]:
                    root[member] = own
                members += conversations.pop(other)
            members.append(number)
        return {
            number
            for members in conversations.values()
            if all(before[later] >> one & 1 for one, later in pairwise(sorted(members)))
            for number in members
        }

    def _shares_context(self, op: Op) -> bool:
        """Return whether the prompts of an op may begin with contexts that were retrieved, and have names."""
        if op.context is None:
            return False
        lookup = self._ops[op.context.source].work
        return not isinstance(lookup, KVLookup) or lookup.added

    def _before_of(self, number: int) -> NDArray[np.int64]:
        """Return the op whose prompt each prompt begins with: the first of those named that is taken, or -1."""
        if number not in self._before:
            extends = self._extends.get(number)
            before = np.full(self._requests, -1)
            for source in reversed(() if extends is None else extends.sources):
                before[self._lengths[source][0] > 0] = source
            self._before[number] = before
        return self._before[number]

    def _first_of(self, number: int) -> NDArray[np.int64]:
        """Return the first op of the conversation that an op is part of; SEVERAL where it parted from another one."""
        if number not in self._first:
            before, extends = self._before_of(number), self._extends.get(number)
            first = np.full(self._requests, SEVERAL if self._shares_context(self._ops[number]) else number)
            for source in () if extends is None else extends.sources:
                goes_on = self._continues(number, source)
                first = np.where(before == source, np.where(goes_on, self._first_of(source), SEVERAL), first)
            self._first[number] = first
        return self._first[number]

    def _continues(self, number: int, source: int) -> NDArray[np.bool_]:
        """Return for which requests an op is the first that goes on from prompt and answer of ``source``."""
        others = self._extenders.get(source, ())
        if number not in others:
            return np.zeros(self._requests, dtype=np.bool_)
        return ~self._left(source, others, others.index(number))

    def _left(self, source: int, others: Sequence[int], end: int) -> NDArray[np.bool_]:
        """Return for which requests one of the first ``end`` of ``others`` goes on from ``source``.

        Conversations have hundreds of turns, so the answer for fewer of them is kept and continued.
        """
        known, left = self._left_by.get(source, (0, np.zeros(self._requests, dtype=np.bool_)))
        if known > end:  # seldom: ops are mostly looked at in order
            known, left = 0, np.zeros(self._requests, dtype=np.bool_)
        for other in others[known:end]:
            taken = self._ops[other].taken
            begins = self._before_of(other) == source
            left |= begins if taken is None else begins & taken
        self._left_by[source] = (end, left)
        return left
