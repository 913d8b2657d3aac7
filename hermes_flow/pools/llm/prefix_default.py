"""Decides which LLM pools have a prefix cache if the user leaves that open (``prefix_cache: null``).

Such a pool has one if its settings allow it and some of its prompts can be found again: later turns of a session,
prompts of a trace that begin with the same blocks, branches, loops. Otherwise it has none, and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hermes_flow.pools.kind import Asked
from hermes_flow.pools.llm.check import prefix_cache_obstacle
from hermes_flow.pools.llm.offload.check import offloads
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.llm.sglang.settings import uses_sglang
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.pools import Pool
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Generate

_BATCHING_NOTES = 1  # notes of a pool that stand before the one about its prefix cache


@dataclass(frozen=True, slots=True)
class PrefixCacheChoice:
    """Whether a pool has a prefix cache, and why: the text of a note in the compiled program."""

    on: bool
    why: str
    warnings: tuple[str, ...] = ()


def with_prefix_note(pool: Pool, choice: PrefixCacheChoice) -> Pool:
    """Return the pool with a note that says whether it has a prefix cache, and why."""
    note = f"prefix cache {'on' if choice.on else 'off'} ({choice.why})"
    return replace(pool, notes=(*pool.notes[:_BATCHING_NOTES], note, *pool.notes[_BATCHING_NOTES:]))


def prefix_cache_choice(
    name: str, pool: LLMPool, asked: Sequence[Asked], requests: Requests
) -> PrefixCacheChoice:
    """Return whether the pool called ``name`` has a prefix cache, by its settings and the stages that it serves."""
    unread = _unread_hashes(name, asked, requests)
    choice = _choice(name, pool, asked, requests)
    idle = (_idle_tiers(name),) if offloads(pool) and not choice.on else ()
    return replace(choice, warnings=(*unread, *choice.warnings, *idle))


def _choice(name: str, pool: LLMPool, asked: Sequence[Asked], requests: Requests) -> PrefixCacheChoice:
    if pool.prefix_cache:
        idle = () if uses_sglang(pool) or _found_again(asked, requests, pool.block_size) else (_idle(name),)
        return PrefixCacheChoice(True, "prefix_cache: true", idle)
    if pool.prefix_cache is not None:
        return PrefixCacheChoice(False, "prefix_cache: false")
    return _by_default(name, pool, asked, requests)


def _by_default(name: str, pool: LLMPool, asked: Sequence[Asked], requests: Requests) -> PrefixCacheChoice:
    obstacle = prefix_cache_obstacle(pool)
    if obstacle is not None:
        return PrefixCacheChoice(False, f"by default: {obstacle}")
    if uses_sglang(pool):
        return PrefixCacheChoice(True, "by default: SGLang keeps every prompt and answer in its radix tree")
    misfit = _misfit(pool, requests)
    if misfit is not None:
        warning = f"cluster.pools.{name} has no prefix cache: {misfit}"
        return PrefixCacheChoice(False, f"by default: {misfit}", (warning,))
    found = _found_again(asked, requests, pool.block_size)
    if found is None:
        return PrefixCacheChoice(False, "by default: no prompt of this workload can be found again")
    return PrefixCacheChoice(True, f"by default: {found}")


def _idle(name: str) -> str:
    return (
        f"cluster.pools.{name}.prefix_cache: true, but no prompt of this workload can be found again: it has no "
        "sessions, no common prefixes and no branches"
    )


def _idle_tiers(name: str) -> str:
    return f"cluster.pools.{name}.offload has no effect: the pool has no prefix cache whose blocks could be moved"


def _unread_hashes(name: str, asked: Sequence[Asked], requests: Requests) -> tuple[str, ...]:
    """Return a warning if prompts whose blocks the workload names begin with a context that names others."""
    if not isinstance(requests.prefixes, Prefixes):
        return ()
    hidden = np.zeros(len(requests), dtype=np.bool_)
    for own in asked:
        begins = _begins_with_context(own, len(requests))
        if begins is not None:
            hidden |= begins & (np.diff(requests.prefixes.offsets) > 0)
    if not hidden.any():
        return ()
    return (
        f"the prefix_hashes of {int(hidden.sum()):,} requests are not read on cluster.pools.{name}: their prompts "
        f"begin with a retrieved context. A pipeline without retrieval reads them, and cluster.pools.{name}.offload "
        "keeps their blocks in memory of the host and on a drive",
    )


def _begins_with_context(own: Asked, requests: int) -> NDArray[np.bool_] | None:
    """Return which prompts of a stage begin with a retrieved context; None if none does."""
    retrieval = (own.prefill or own).retrieval
    if retrieval is None or not isinstance(own.work, Generate):
        return None
    lookup, looks_up = retrieval.work, retrieval.stage.taken
    assert isinstance(lookup, KVLookup)
    if not lookup.added:
        return None
    taken = np.ones(requests, dtype=np.bool_) if own.stage.taken is None else own.stage.taken
    return taken if looks_up is None else taken & looks_up


def _misfit(pool: LLMPool, requests: Requests) -> str | None:
    """Return why the blocks of a pool and those of the workload cannot be cut into each other."""
    if requests.prefixes is None:
        return None
    tokens, size = requests.prefixes.block_tokens, pool.block_size
    if size < 1 or not (tokens % size and size % tokens):
        return None
    return f"its blocks of {size} tokens neither divide nor are a multiple of the workload's of {tokens}"


def _found_again(asked: Sequence[Asked], requests: Requests, block_size: int) -> str | None:
    """Return which prompts of a pool can be found again, or None where none can."""
    if any((own.prefill or own).stage.extends for own in asked):
        return "branches, loops or scores go on from a prompt"
    firsts: dict[str, list[Ints]] = {}
    for own in asked:
        for source, names in _first_blocks(own, requests, block_size):
            firsts.setdefault(source, []).append(names)
    for found in firsts.values():
        names = np.concatenate(found)
        if len(np.unique(names)) < len(names):
            return "several prompts begin with the same block"
    return None


def _first_blocks(own: Asked, requests: Requests, block_size: int) -> Iterator[tuple[str, Ints]]:
    """Yield names of the first blocks of a stage's prompts, as far as they have one and are looked up.

    With them comes what named them: the retrieval of their contexts, or nothing for the workload's prefixes.
    """
    if not isinstance(own.work, Generate):
        return
    prompt, prefixes = own.work.prompt, requests.prefixes
    taken = np.ones(len(requests), dtype=np.bool_) if own.stage.taken is None else own.stage.taken
    retrieval, begins = (own.prefill or own).retrieval, _begins_with_context(own, len(requests))
    if retrieval is not None and begins is not None:
        lookup = retrieval.work
        assert isinstance(lookup, KVLookup)
        taken = taken & ~begins
        if lookup.key is not None:
            chosen = np.flatnonzero(begins & (np.minimum(lookup.tokens, prompt) >= block_size))
            yield retrieval.stage.name, lookup.key[chosen]
    if isinstance(prefixes, Prefixes):
        known = np.minimum(prompt, np.diff(prefixes.offsets) * prefixes.block_tokens)
        chosen = np.flatnonzero(taken & (known >= block_size))
        last_part = max(1, block_size // prefixes.block_tokens) - 1
        yield "", prefixes.ids[prefixes.offsets[chosen] + last_part]
    elif prefixes is not None:
        chosen = np.flatnonzero(taken & (np.minimum(prompt, prefixes.input_tokens) >= block_size))
        common = prefixes.system_tokens[chosen] >= block_size
        yield "", np.where(common, 2 * prefixes.system_prompt[chosen], 2 * prefixes.session[chosen] + 1)
