"""Cuts prompts to the tokens that a step has left, by the two rules of TensorRT-LLM."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def first_come_first_served(
    missing: Sequence[int], spared: Sequence[int], budget: int, unit: int
) -> list[int]:
    """Return the chunk of each prompt: each in order takes all that is left, cut down to whole units.

    ``missing`` are the tokens that each prompt has not computed, of which ``spared`` are known to the cache and cost
    nothing; a chunk that does not complete its prompt costs its full size.
    """
    chunks = []
    for tokens, known in zip(missing, spared, strict=True):
        if tokens - known <= budget:
            chunk, cost = tokens, tokens - known
        else:
            chunk = cost = min(tokens, budget) // unit * unit
        chunks.append(chunk)
        budget -= cost
    return chunks


def equal_progress(missing: Sequence[int], spared: Sequence[int], budget: int, unit: int) -> list[int]:
    """Return the chunk of each prompt: all take one more unit in turns until nothing is left for one."""
    chunks = [0] * len(missing)
    growing = True
    while growing:
        growing = False
        for place, (tokens, known) in enumerate(zip(missing, spared, strict=True)):
            more = min(chunks[place] + unit, tokens)
            extra = _cost(more, tokens, known) - _cost(chunks[place], tokens, known)
            if more > chunks[place] and extra <= budget:
                chunks[place], budget, growing = more, budget - extra, True
    return chunks


def _cost(chunk: int, missing: int, spared: int) -> int:
    return chunk - spared if chunk == missing else chunk


CHUNKING: dict[str, Callable[[Sequence[int], Sequence[int], int, int], list[int]]] = {
    "first_come_first_served": first_come_first_served,
    "equal_progress": equal_progress,
}
