"""Notes which prompts' KV a decode still awaits, so that the prefill client keeps their blocks until then."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hermes_flow.program.ops import Op


class HeldKV:
    """By prefill and request, whether its KV is awaited. One decode at most awaits it: the compiler refuses more."""

    __slots__ = ("_all", "_awaited", "_ops")

    def __init__(self, ops: Sequence[Op], requests: int) -> None:
        self._ops = ops
        self._all: dict[int, list[bool]] = {}
        self._awaited: dict[int, list[bool]] = {}
        for source in sorted({op.kv.source for op in ops if op.kv is not None}):
            awaited = np.zeros(requests, dtype=np.int64)
            for op in ops:
                if op.kv is not None and op.kv.source == source:
                    awaited += 1 if op.taken is None else op.taken
            assert awaited.max(initial=0) <= 1, "two answers would decode the same prompt"
            self._all[source] = awaited.astype(bool).tolist()
            self._awaited[source] = awaited.astype(bool).tolist()

    def taken_over(self, source: int, request: int) -> bool:
        """Note that the decode has the KV of ``source``, or needs it no more; return whether it was awaited."""
        awaited = self._awaited[source]
        was, awaited[request] = awaited[request], False
        return was

    def never_taken(self, op: int, source: int, request: int) -> bool:
        """Note that an op will not be begun; return whether the KV of ``source`` was awaited for it."""
        taken = self._ops[op].taken
        return (taken is None or bool(taken[request])) and self.taken_over(source, request)

    def forget(self, source: int, request: int) -> bool:
        """Let the KV of ``source`` be awaited anew; return whether it ever is."""
        if source not in self._awaited:
            return False
        self._awaited[source][request] = self._all[source][request]
        return self._all[source][request]
