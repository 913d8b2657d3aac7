"""What prompts hold, block by block: the keys by which a prefix cache finds it again.

A prompt begins with what the workload says its request shares with others, or with the prompt (and answer) of an
earlier op of the same request: another branch, a turn before. The rest is its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from hermes_flow.program.ops import Op
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.program import Program


class PoolContent:
    """Keys of the prompts and answers of a pool's tasks, which it numbers op by op."""

    __slots__ = ("_count", "_extended", "_lengths", "_numbers", "_ops", "_prefixes", "_read")

    def __init__(self, program: Program, numbers: list[int]) -> None:
        self._ops = program.ops
        self._numbers = numbers
        self._count = len(program.requests)
        self._prefixes = program.requests.prefixes
        self._extended = _extended_by(program.ops, numbers)
        self._lengths = {number: _lengths(program.ops[number]) for number in self._extended}
        self._read = {} if program.requests.previous is None else _read_answers(program)

    def prompt_keys(self, task: int, block_size: int, prompt: int) -> Sequence[Hashable]:
        """Return a key for each of the prompt's first full blocks that anyone else can ask for."""
        place, request = divmod(task, self._count)
        number = self._numbers[place]
        if number not in self._extended and not self._ops[number].extends:
            # What a guard reads has a template around it and is not looked up.
            if self._prefixes is None or self._ops[number].kind == "forward":
                return ()
            return self._prefixes.block_keys(request, block_size, prompt)
        return self._keys(number, request, block_size, prompt // block_size, own=number in self._extended)

    def answer_keys(self, task: int, block_size: int, prompt: int, output: int) -> Sequence[Hashable]:
        """Return the keys of the full blocks after those, up to the answer's end, where a later prompt holds them.

        None for tasks that do not write an answer, or write one that is not in the next turn's prompt.
        """
        place, request = divmod(task, self._count)
        number = self._numbers[place]
        if number in self._extended:
            return [
                (number, request, block)
                for block in range(prompt // block_size, (prompt + output) // block_size)
            ]
        if number not in self._read or not self._read[number][request]:
            return ()
        assert isinstance(self._prefixes, SessionPrefixes)
        return self._prefixes.answer_keys(request, block_size, prompt, output)

    def _keys(self, number: int, request: int, size: int, blocks: int, *, own: bool) -> list[Hashable]:
        """Return the keys of an op's first ``blocks`` blocks; its own ones only if ``own``."""
        parts: list[tuple[int, int, int]] = []  # op, from block, to block: the last part first
        end = blocks
        op = self._ops[number]
        while (before := self._begins_with(op, request)) is not None:
            prompt, output = self._lengths[before]
            known = prompt[request] + (output[request] if op.extends_answer else 0)
            first = min(end, known // size)
            if own:
                parts.append((number, first, end))
            number, end, own, op = before, first, True, self._ops[before]
        keys: list[Hashable] = []
        if self._prefixes is not None and op.prompt is not None:
            keys += self._prefixes.block_keys(request, size, min(end * size, int(op.prompt[request])))
        if own:
            parts.append((number, len(keys), end))
        for part, first, last in reversed(parts):
            keys += [(part, request, block) for block in range(first, last)]
        return keys

    def _begins_with(self, op: Op, request: int) -> int | None:
        """Return the op whose prompt an op's prompt begins with: the first of those named that is taken."""
        return next((number for number in op.extends if self._lengths[number][0][request]), None)


def _extended_by(ops: Sequence[Op], numbers: Sequence[int]) -> set[int]:
    """Return the ops that the prompts of ``numbers`` begin with, and those that these begin with in turn."""
    found: set[int] = set()
    left = list(numbers)
    while left:
        new = set(ops[left.pop()].extends) - found
        found |= new
        left += new
    return found


def _read_answers(program: Program) -> dict[int, list[bool]]:
    """Return, by op that writes answers, for which requests the user reads its answer: no later one is taken."""
    read = {}
    later = np.zeros(len(program.requests), dtype=np.bool_)
    for number in reversed(program.answers):
        taken = program.ops[number].taken
        read[number] = (~later if taken is None else taken & ~later).tolist()
        if program.ops[number].decided is not None:
            continue  # no other outcome's answer comes after it
        later = np.ones_like(later) if taken is None else later | taken
    return read


def _lengths(op: Op) -> tuple[list[int], list[int]]:
    """Return an op's prompts and answers, 0 for requests that do not take it."""
    assert op.prompt is not None
    assert op.output is not None
    if op.taken is None:
        return op.prompt.tolist(), op.output.tolist()
    return (op.prompt * op.taken).tolist(), (op.output * op.taken).tolist()
