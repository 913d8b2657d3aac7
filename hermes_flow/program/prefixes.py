"""Blocks of tokens that the prompts of several requests begin with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints

_BLOCK_BITS = 44  # more blocks than any prompt has


@dataclass(frozen=True, slots=True)
class Prefixes:
    """The shared beginnings of prompts: ids of blocks of ``block_tokens`` tokens for each request.

    Request r has the ids ``ids[offsets[r]:offsets[r + 1]]``; equal ids are equal content, including all that
    comes before them.
    """

    ids: Ints
    offsets: Ints
    block_tokens: int
    answers: bool = False  # the ids go on into the answers

    def full_blocks(self, request: int, block_size: int, prompt_tokens: int) -> int:
        """Return how many full blocks of ``block_size`` tokens the ids name within the prompt."""
        named = int(self.offsets[request + 1] - self.offsets[request]) * self.block_tokens
        return min(prompt_tokens, named) // block_size

    def block_keys(self, request: int, block_size: int, prompt_tokens: int) -> list[int]:
        """Return a key for each full block of ``block_size`` tokens that the ids name within the prompt.

        ``block_size`` divides ``block_tokens`` or is a multiple of it.
        """
        ids: list[int] = self.ids[self.offsets[request] : self.offsets[request + 1]].tolist()
        covered = min(prompt_tokens, len(ids) * self.block_tokens)
        if block_size < self.block_tokens:
            parts = self.block_tokens // block_size
            return [ids[block // parts] * parts + block % parts for block in range(covered // block_size)]
        step = block_size // self.block_tokens
        return ids[step - 1 :: step][: covered // block_size]

    def reordered(self, order: NDArray[np.intp]) -> Prefixes:
        """Return the same prefixes with the requests in another order."""
        parts = [self.ids[self.offsets[row] : self.offsets[row + 1]] for row in order.tolist()]
        lengths = np.diff(self.offsets)[order]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return Prefixes(np.concatenate(parts), offsets, self.block_tokens, self.answers)


@dataclass(frozen=True, slots=True)
class SessionPrefixes:
    """The shared content of sessions: a system prompt with other sessions, and earlier turns with their own.

    A prompt is the session's system prompt (number ``system_prompt``, of ``system_tokens`` tokens), the earlier
    turns with their answers, and what is new; the next turn's prompt goes on from its answer. Sessions are
    numbered from 0; all columns have an entry per request.
    """

    session: Ints
    system_prompt: Ints
    system_tokens: Ints
    input_tokens: Ints
    output_tokens: Ints

    block_tokens: ClassVar[int] = 1  # content is known token by token: blocks of any size can be cut

    def full_blocks(self, request: int, block_size: int, prompt_tokens: int) -> int:
        """Return the known full blocks of the prompt; tokens beyond the session's own text are not known."""
        return min(prompt_tokens, int(self.input_tokens[request])) // block_size

    def block_keys(self, request: int, block_size: int, prompt_tokens: int) -> Sequence[int]:
        """Return a key for each full block of the prompt that is known."""
        blocks = self.full_blocks(request, block_size, prompt_tokens)
        keys = [
            range((chain << _BLOCK_BITS) + first, (chain << _BLOCK_BITS) + last)
            for chain, first, last in self.runs(request, block_size, 0, blocks)
        ]
        return keys[0] if len(keys) == 1 else [key for run in keys for key in run]

    def answer_blocks(self, request: int, block_size: int, prompt_tokens: int, output_tokens: int) -> int:
        """Return the full blocks of prompt and answer if the next turn begins with both, else 0.

        It does not where documents were added to the prompt, or reasoning to the answer.
        """
        prompt, answer = int(self.input_tokens[request]), int(self.output_tokens[request])
        if (prompt_tokens, output_tokens) != (prompt, answer):
            return 0
        return (prompt + answer) // block_size

    def runs(self, request: int, block_size: int, first: int, last: int) -> list[tuple[int, int, int]]:
        """Return the blocks ``first`` … ``last − 1`` of prompt and answer as runs (chain, first block, last + 1).

        Chains of system prompts are even numbers, those of sessions odd ones.
        """
        shared = int(self.system_tokens[request]) // block_size
        runs = []
        if first < min(last, shared):
            runs.append((2 * int(self.system_prompt[request]), first, min(last, shared)))
        if last > max(first, shared):
            runs.append((2 * int(self.session[request]) + 1, max(first, shared), last))
        return runs
