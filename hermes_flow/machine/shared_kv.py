"""KV that need not be sent: what receivers have already of prompts, and who waits for whose KV."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.ops import Op


class SharedKV:
    """By op and request: the tokens of a prompt that its receiver had as its KV set out.

    They may come with the KV of another branch of the same answer. A task then waits for both transfers.
    """

    __slots__ = ("_behind", "_followers", "_ops", "_present")

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = ops
        self._present: list[dict[int, int]] = [{} for _ in ops]
        self._behind: dict[tuple[int, int], int] = {}  # (op, request) → the op that brings the rest of its KV
        self._followers: dict[
            tuple[int, int], list[int]
        ] = {}  # (op, request) → ops that wait for what it brings

    def forget(self, op: int, request: int) -> None:
        """Forget what a receiver has of a prompt, whose KV is sent anew."""
        self._present[op].pop(request, None)
        self._behind.pop((op, request), None)
        for (_, other), waiting in self._followers.items():
            if other == request and op in waiting:
                waiting.remove(op)

    def found(self, op: int, request: int, tokens: int, brings: int | None) -> None:
        """Take note that ``tokens`` of a prompt need not be sent, and of the op that brings them, if any."""
        self._present[op][request] = tokens
        if brings is not None:
            self._behind[op, request] = brings

    def moved(self, op: int, request: int, size: int) -> int:
        """Return what moves of ``size`` bytes of a prompt's KV: not what the receiver has already."""
        present = self._present[op].get(request)
        if present is None:
            return size
        work = self._ops[op].llm
        assert work is not None
        prompt = int(work.prompt[request])
        return -(-size * (prompt - present) // prompt)

    def requests(self, op: int) -> Sequence[int]:
        """Return the requests whose KV for an op did not move whole."""
        return list(self._present[op])

    def waits_for(self, op: int, request: int) -> int | None:
        """Return the op that brings the rest of a prompt's KV, asked once as the KV of ``op`` itself is there."""
        return self._behind.pop((op, request), None)

    def follow(self, op: int, request: int, brings: int) -> None:
        """Let ``op`` wait until the KV for op ``brings`` is there."""
        self._followers.setdefault((brings, request), []).append(op)

    def followers(self, op: int, request: int) -> Sequence[int]:
        """Return the ops that waited for what ``op`` brings, which is there now."""
        return self._followers.pop((op, request), ())
