"""The retrievals of one memory pool, which its clients share: what each asks for, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord


class MemoryTasks(PoolTasks):
    """The contexts and the results of the retrievals, by task.

    ``loaded`` is how many tokens of the context were loaded, ``read`` the bytes that were read for it, and
    ``alone_ns`` how long the retrieval takes while no other is under way. ``keys``, ``wanted``, ``wanted_bytes``
    and ``kept_tokens`` are columns of the lookups: names of contexts, their tokens and bytes, and what is kept.
    ``all_named`` tells whether all contexts have names.
    """

    __slots__ = (
        "_columns",
        "_count",
        "_lasting",
        "all_named",
        "alone_ns",
        "finish_ns",
        "kept_tokens",
        "keys",
        "loaded",
        "lookups",
        "read",
        "start_ns",
        "wanted",
        "wanted_bytes",
    )

    def __init__(self, lookups: Sequence[KVLookup], count: int) -> None:
        total = len(lookups) * count
        self.lookups = lookups
        self.start_ns = [-1] * total
        self.finish_ns = [-1] * total
        self.loaded = [0] * total
        self.read = [0] * total
        self.alone_ns = [0] * total
        self._count = count
        self._lasting: int | None = None
        self.all_named = all(own.key is not None for own in lookups)
        names = (
            "tokens",
            "bytes",
            "tier",
            "expected_ns",
            "expected_tokens",
            "key",
            "kept_tokens",
            "kept_bytes",
        )
        self._columns = {name: _columns([getattr(own, name) for own in lookups], count) for name in names}
        self.keys, self.wanted, self.wanted_bytes, self.kept_tokens = (
            self._columns[name] for name in ("key", "tokens", "bytes", "kept_tokens")
        )

    def lasting_bytes(self) -> int | None:
        """Return no fewer bytes than all contexts together; None where one may change, or a drawn tier has it."""
        if self._lasting is None:
            self._lasting = _lasting_bytes(self.lookups)
        return self._lasting if self._lasting >= 0 else None

    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return when each retrieval began and ended, and the bytes that were read for it."""
        start, finish, read, alone = (
            np.array(column[first : first + count], dtype=np.int64)
            for column in (self.start_ns, self.finish_ns, self.read, self.alone_ns)
        )
        return OpRecord(client, ready_ns, start, finish, bytes=read, alone_ns=alone)

    def context_tokens(self, task: int) -> int:
        """Return the tokens of the context that were loaded."""
        return self.loaded[task]

    def context_bytes(self, task: int) -> int:
        """Return the bytes of the context that were loaded."""
        return self.read[task]

    def context_sizes(self) -> list[int]:
        """Return the bytes of the contexts that were loaded by task."""
        return self.read

    def lookup(self, task: int) -> KVLookup:
        """Return the retrieval that a task belongs to."""
        return self.lookups[task // self._count]

    def value(self, name: str, task: int) -> int:
        """Return a task's entry in a column of its lookup, −1 where that has no such column."""
        return self._columns[name][task]


def _lasting_bytes(lookups: Sequence[KVLookup]) -> int:
    """Return what ``MemoryTasks.lasting_bytes`` does, −1 for None."""
    if len(lookups) != 1:
        return -1
    (lookup,) = lookups
    key, tokens, kept = lookup.key, lookup.tokens, lookup.kept_tokens
    if key is None or kept is None or lookup.kept_bytes is None or not np.array_equal(tokens, kept):
        return -1
    if lookup.all_bytes is not None:
        return int(lookup.all_bytes.sum())
    asked = tokens > 0
    keys, place = np.unique(key[asked], return_inverse=True)
    sizes, first = np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(sizes, place, lookup.kept_bytes[asked])
    first[place] = tokens[asked]
    return int(sizes.sum()) if np.array_equal(first[place], tokens[asked]) else -1


def _columns(columns: list[Ints | None], count: int) -> list[int]:
    return [value for column in columns for value in ([-1] * count if column is None else column.tolist())]
