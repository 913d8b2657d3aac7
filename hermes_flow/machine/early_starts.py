"""Starts ops at a token of an answer while the op that writes the answer continues."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.ops import Op
from hermes_flow.program.units import Ints


class EarlyStarts:
    """The ops that begin at a token of another op; ``watched`` tells which ops have such tokens.

    One that begins with an answer's last token simply comes after the op that writes it.
    """

    __slots__ = ("_at", "_ops", "_readers", "_taken", "watched")

    def __init__(self, ops: Sequence[Op]) -> None:
        self._ops = ops
        self._readers: dict[int, list[int]] = {}
        for number, op in enumerate(ops):
            for before in op.after if op.at_token is not None else ():
                self._readers.setdefault(before, []).append(number)
        self.watched = [number in self._readers for number in range(len(ops))]
        readers = {reader for found in self._readers.values() for reader in found}
        self._at = {reader: _column(ops[reader].at_token, 0) for reader in readers}
        self._taken = {reader: _column(ops[reader].taken, len(self._at[reader])) for reader in readers}

    def by_task(self, ops: Sequence[int], requests: int) -> dict[int, list[int]]:
        """Return, by the task of a pool that serves ``ops``, the tokens at which others begin, the first one last."""
        return {
            place * requests + request: tokens
            for place, op in enumerate(ops)
            if self.watched[op]
            for request, tokens in self._tokens(op).items()
        }

    def _tokens(self, op: int) -> dict[int, list[int]]:
        """Return, by request, the tokens of a watched op at which others begin, the first token last."""
        output = self._output(op).tolist()
        taken = _column(self._ops[op].taken, len(output))
        found: dict[int, set[int]] = {}
        for reader in self._readers[op]:
            for request, (token, reads) in enumerate(zip(self._at[reader], self._taken[reader], strict=True)):
                if reads and taken[request] and token < output[request]:
                    found.setdefault(request, set()).add(token)
        return {request: sorted(tokens, reverse=True) for request, tokens in found.items()}

    def beginning(self, op: int, request: int, token: int) -> list[int]:
        """Return the ops that begin at a token of a watched op's answer."""
        readers = self._readers[op]
        return [
            reader
            for reader in readers
            if self._at[reader][request] == token and self._taken[reader][request]
        ]

    def begun(self, op: int, request: int, reader: int) -> bool:
        """Return whether an op after a watched one began before that one ended."""
        if reader not in self._at or not self._taken[reader][request]:
            return False
        return self._at[reader][request] < int(self._output(op)[request])

    def _output(self, op: int) -> Ints:
        work = self._ops[op].generate
        assert work is not None
        return work.output


def _column(values: Ints | NDArray[np.bool_] | None, count: int) -> list[int]:
    """Return the values as a list; of those who take an op, None is all."""
    column: list[int] = [1] * count if values is None else values.tolist()
    return column
