"""Counts who still awaits the KV of a prompt, so that its prefill client frees it when nobody does."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.program.ops import Op


class HeldKV:
    """By prefill and request, the ops that have not taken its KV over yet."""

    __slots__ = ("_all", "_awaited", "_never", "_ops")

    def __init__(self, ops: Sequence[Op], requests: int) -> None:
        self._ops = ops
        self._all: dict[int, list[int]] = {}
        self._awaited: dict[int, list[int]] = {}
        self._never: set[tuple[int, int]] = set()  # (op, request) of ops that will not be begun
        for source in sorted({op.kv.source for op in ops if op.kv is not None}):
            awaited = np.zeros(requests, dtype=np.int64)
            for op in ops:
                if op.kv is not None and op.kv.source == source:
                    awaited += 1 if op.taken is None else op.taken
            self._all[source] = awaited.tolist()
            self._awaited[source] = awaited.tolist()

    def taken_over(self, source: int, request: int) -> bool:
        """Note that an op has the KV of ``source``; return whether it was the last to await it."""
        awaited = self._awaited[source]
        awaited[request] -= 1
        return not awaited[request]

    def never_taken(self, op: int, source: int, request: int) -> bool:
        """Note that an op will not be begun; return whether it was the last to await the KV of ``source``."""
        taken = self._ops[op].taken
        if (taken is not None and not taken[request]) or (op, request) in self._never:
            return False
        self._never.add((op, request))
        return self.taken_over(source, request)

    def forget(self, source: int, request: int) -> bool:
        """Let all that ever await the KV of ``source`` await it anew; return whether there are any."""
        if source not in self._awaited:
            return False
        self._awaited[source][request] = self._all[source][request]
        return self._all[source][request] > 0
