"""A warning where retrieved contexts waited in a queue in amounts that matter: they take no memory there.

A context is read as its turn in the store comes, and its prompt then waits for a seat. The blocks are taken with the
seat, so what waits is in no memory. Real engines take blocks first and read then, or keep the context where it was.
"""

from __future__ import annotations

import numpy as np

from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import Recording

_SHARE = 0.05  # of a client's KV cache; less changes little


def context_warnings(recording: Recording) -> list[str]:
    """Return a warning for each pool on a client of which contexts of 5 % of its KV cache or more waited at once."""
    program = recording.program
    found = []
    for index, pool in enumerate(program.pools):
        ops = [number for number, op in enumerate(program.ops) if op.pool == index and op.context is not None]
        if not ops or not isinstance(pool.client, LLMClientSpec) or pool.client.holds_contexts:
            continue
        tokens = _most_at_once(recording, ops)
        share = tokens / (pool.client.kv_blocks * pool.client.block_size)
        if share >= _SHARE:
            found.append(
                f"retrieved contexts of up to {tokens:,} tokens waited at once on a client of {pool.name}, which is "
                f"{share:.0%} of its KV cache, and took no memory there; an engine that takes blocks before it reads "
                "a context would serve fewer requests meanwhile (retrieved_kv: held)"
            )
    return found


def _most_at_once(recording: Recording, ops: list[int]) -> int:
    """Return the most tokens of contexts that waited at one time on one client, for prefills ``ops``.

    Those are what a prompt began with, at most the context that was looked up for it.
    """
    clients, at, change = [], [], []
    for number in ops:
        edge, record = recording.program.ops[number].context, recording.ops[number]
        assert edge is not None
        retrieval, lookup = recording.ops[edge.source], recording.program.ops[edge.source].work
        if record.cached_tokens is None or not isinstance(lookup, KVLookup):
            continue
        tokens = np.minimum(record.cached_tokens, lookup.tokens)
        here = (tokens > 0) & (retrieval.client >= 0) & (record.start_ns >= 0) & (record.client >= 0)
        moved = 0 if record.transfer_ns is None else record.transfer_ns[here]
        clients += [record.client[here]] * 2
        at += [record.ready_ns[here] + moved, record.start_ns[here]]
        change += [tokens[here], -tokens[here]]
    if not clients:
        return 0
    return _peak(np.concatenate(clients), np.concatenate(at), np.concatenate(change))


def _peak(clients: Ints, at: Ints, change: Ints) -> int:
    """Return the highest sum of changes of any client; those that leave at an instant go before those that come."""
    order = np.lexsort((change, at, clients))
    sums = np.cumsum(change[order])  # each client's changes add up to 0
    return int(sums.max(initial=0))
