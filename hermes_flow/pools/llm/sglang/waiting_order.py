"""The order in which SGLang tries waiting requests: by arrival, or by the longest known prefix."""

from __future__ import annotations

from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool

_COMPARED_TOKENS = 32  # requests that begin alike and are not known yet wait for the first of them
_MOST_MATCHED = 128
_REFRESH_EVERY = 32


class WaitingOrder:
    """``longest_prefix`` is the policy ``lpm``; else requests keep their order (``fcfs``)."""

    __slots__ = ("_decisions", "_longest_prefix")

    def __init__(self, *, longest_prefix: bool) -> None:
        self._longest_prefix = longest_prefix
        self._decisions = 0

    def sort(self, waiting: list[Sequence], pool: TokenPool) -> None:
        """Order the queue in place for one decision; prefixes that are matched become recent."""
        if pool.tree is None or not waiting:
            return
        if not self._longest_prefix:
            if self._decisions % _REFRESH_EVERY == 0:
                for sequence in waiting[: -_MOST_MATCHED - 1 : -1]:
                    pool.match(sequence, sequence.length)
            self._decisions += 1
            return
        if len(waiting) > _MOST_MATCHED:
            return
        compared = -(-_COMPARED_TOKENS // pool.page)  # in pages
        first_of_kind: set[tuple[int, ...]] = set()
        keys: dict[int, tuple[bool, int]] = {}
        for sequence in waiting:
            _, known = pool.match(sequence, sequence.length)
            put_off = False
            if known <= _COMPARED_TOKENS:
                begins = tuple(sequence.pages[: min(compared, sequence.length // pool.page)])
                if len(begins) == compared and begins in first_of_kind:
                    put_off = True
                elif len(begins) == compared:
                    first_of_kind.add(begins)
            keys[sequence.task] = (
                put_off,
                0 if put_off else -min(known + pool.only_in_host, sequence.length - 1),
            )
        waiting.sort(key=lambda sequence: keys[sequence.task])
