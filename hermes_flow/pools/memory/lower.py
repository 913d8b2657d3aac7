"""Phase 5, memory pools: the contexts that requests look up, the sizes of their KV, and the tiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

import numpy as np

from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.kind import Lowering, kind_of
from hermes_flow.pools.memory.schema import MemoryPool, MemoryTier
from hermes_flow.program.kv_store import REMOTE, KVLookup, MemoryClientSpec, RemoteSpec, TierSpec
from hermes_flow.program.network import HostMemory
from hermes_flow.program.ops import ContextEdge
from hermes_flow.program.pools import Pool
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import BYTES_PER_MB, Ints, bytes_to_gb, gb_to_bytes, us_to_ns
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages import RequestSizes
from hermes_flow.stages.kv_retrieval import KVRetrieval
from hermes_flow.stages.placed import PlacedStage
from hermes_flow.workload.sessions import said_tokens
from hermes_flow.workload.streams import stream


def lower_retrievals(
    placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
) -> tuple[dict[int, KVLookup], dict[int, ContextEdge]]:
    """Return what the stages at ``places``, those on memory pools, look up, and the prefills that begin with it.

    Problems are appended, their stages left out: a prefill after two retrievals, contexts that no tier can hold.
    """
    pools, problems = list(lowering.cluster.pools.items()), lowering.problems
    lookups: dict[int, KVLookup] = {}
    contexts: dict[int, ContextEdge] = {}
    for place in places:
        own = placed[place]
        (name, pool), params = pools[own.pool], own.stage.params
        assert isinstance(pool, MemoryPool)
        assert isinstance(params, KVRetrieval)
        targets = _next_prefills(placed, place)
        if _claim(place, targets, placed, contexts, problems):
            continue
        chance = stream(lowering.seed, f"stage:{lowering.graph.own_name(own.name)}")
        per_token = _per_token(targets, placed, list(lowering.cluster.pools.values()))
        if pool.begins_with != "nothing" and not isinstance(per_token, float | int):
            problems.append(
                f"cluster.pools.{name}.begins_with: {pool.begins_with}, but the KV of {own.name!r} is of several "
                "models; expected nothing"
            )
            continue
        lookups[place] = lookup = _lookup(own, params, per_token, pool, lowering.requests, chance)
        _check_overlap(own, params, [pools[placed[target].pool] for target in targets], problems)
        contexts |= dict.fromkeys(targets, ContextEdge(place, params.overlap))
        _check_capacity(lookup, own.taken, name, pool, problems)
    return lookups, contexts


def _check_overlap(
    own: PlacedStage, params: KVRetrieval, readers: Sequence[tuple[str, object]], problems: list[str]
) -> None:
    """Prompts that get blocks before their contexts are read have their place in the queue from then on."""
    for name, pool in readers if params.overlap else ():
        if getattr(pool, "retrieved_kv", "at_admission") == "held":
            problems.append(
                f"pipeline.stages.{own.name}.overlap: true, but cluster.pools.{name}.retrieved_kv is held, with "
                "which prompts take their places before contexts are read; expected false"
            )


def lower_memory(name: str, pool: MemoryPool, routing: RoutingPolicy, cluster: Cluster) -> Pool:
    """Return the pool as the simulator sees it, its tiers not yet placed among the memories of the program."""
    tiers = tuple(
        replace(tier_spec(tier, own), shared_by=min(own.shared_by, pool.count))
        for tier, own in pool.tiers.items()
    )
    link, notes = _host_link(pool, cluster)
    for spec, (tier, own) in zip(tiers, pool.tiers.items(), strict=True):
        shared = f", shared by {spec.shared_by} clients" if spec.shared_by > 1 else ""
        notes.append(
            f"{tier}: {own.capacity_gb:,g} GB at {own.bandwidth_gb_s:,g} GB/s, lookup {own.lookup_us:,g} µs{shared}"
        )
    return Pool(
        name=name,
        hardware=pool.hardware.name,
        count=pool.count,
        routing=routing,
        client=MemoryClientSpec(
            tiers,
            pool.write_back,
            pool.begins_with,
            _remote(pool, tiers),
            pool.contention,
            link_bytes_per_ns=link,
            link_shared_by=min(pool.host_link_shared_by, pool.count) if link else 1,
        ),
        usd_per_hour=pool.hardware.usd_per_hour if pool.usd_per_hour is None else pool.usd_per_hour,
        notes=(*notes, *_reads(pool), *_begins(pool), "power: not known; what memory draws is not modelled"),
        beside=None if pool.beside is None else list(cluster.pools).index(pool.beside),
    )


def _remote(pool: MemoryPool, tiers: Sequence[TierSpec]) -> RemoteSpec | None:
    """Return the tier of other stores as the simulator sees it."""
    if pool.remote is None:
        return None
    place = list(pool.tiers).index(pool.remote.tier)
    tier = replace(
        tiers[place],
        name=REMOTE,
        lookup_ns=us_to_ns(pool.remote.lookup_us),
        latency_ns=tiers[place].latency_ns + us_to_ns(pool.remote.latency_us),
    )
    return RemoteSpec(place, tier)


def _reads(pool: MemoryPool) -> list[str]:
    notes = []
    if pool.remote is not None:
        far = pool.remote
        notes.append(
            f"{REMOTE}: {far.tier} of the other stores, lookup {far.lookup_us:,g} µs; no links between stores"
        )
    if not pool.contention:
        notes.append("every read has the whole bandwidth of its tier (contention: false)")
    return notes


def _begins(pool: MemoryPool) -> list[str]:
    if pool.begins_with == "nothing":
        return []
    words = {
        "most_asked": "the contexts that are asked for most",
        "spread": "all contexts, each in one store",
    }
    return [f"when the run begins: {words[pool.begins_with]}, as far as there is room"]


def with_tiers(pool: Pool, memories: list[HostMemory]) -> Pool:
    """Return the pool with every tier among the memories of the program, which are appended, and their links."""
    client = pool.client
    assert isinstance(client, MemoryClientSpec)
    placed = []
    for tier in client.tiers:
        first, share = len(memories), min(tier.shared_by, pool.count)
        memories += [
            HostMemory(f"{pool.name}/{index} {tier.name}", tier.bytes_per_ns)
            for index in range(0, pool.count, share)
        ]
        places = tuple(first + index // share for index in range(pool.count))
        placed.append(replace(tier, memories=places))
    return replace(pool, client=replace(client, tiers=tuple(placed), links=_links(pool, memories)))


def _host_link(pool: MemoryPool, cluster: Cluster) -> tuple[float, list[str]]:
    """Return the rate between a store and the devices of the client beside it, and a note; 0 for none."""
    if not pool.host_link or pool.beside is None:
        return 0.0, []
    beside = cluster.pools[pool.beside]
    assert beside.hardware is not None
    rate = (beside.hardware.host_link_gb_s or 0.0) * beside.devices
    clients = min(pool.host_link_shared_by, pool.count)
    shared = f", which {clients} of them share" if clients > 1 else ""
    return rate, [f"over the host links of a client of {pool.beside}: {rate:,g} GB/s each way{shared}"]


def _links(pool: Pool, memories: list[HostMemory]) -> tuple[tuple[int, int], ...]:
    """Append the links to devices and back to the memories, and return those of each client."""
    client = pool.client
    assert isinstance(client, MemoryClientSpec)
    if not client.link_bytes_per_ns:
        return ()
    first, share = len(memories), min(client.link_shared_by, pool.count)
    for index in range(0, pool.count, share):
        memories += [
            HostMemory(f"{pool.name}/{index} host link {way}", client.link_bytes_per_ns, "host link")
            for way in ("to devices", "from devices")
        ]
    return tuple(
        (first + 2 * (index // share), first + 2 * (index // share) + 1) for index in range(pool.count)
    )


def tier_spec(name: str, tier: MemoryTier) -> TierSpec:
    """Return a tier as the simulator sees it, not yet placed among the memories of a program."""
    buffer = tier.buffer
    return TierSpec(
        name=name,
        capacity_bytes=round(gb_to_bytes(tier.capacity_gb)),
        bytes_per_ns=tier.bandwidth_gb_s,
        lookup_ns=us_to_ns(tier.lookup_us),
        latency_ns=us_to_ns(tier.latency_us),
        buffer_bytes=0 if buffer is None else round(buffer.size_mb * BYTES_PER_MB),
        buffer_bytes_per_ns=1.0 if buffer is None else buffer.gb_s,
        read_ahead=buffer is not None and buffer.read_ahead,
        shared_by=tier.shared_by,
        in_host=tier.in_host,
    )


def _next_prefills(placed: Sequence[PlacedStage], place: int) -> list[int]:
    """Return the stages that prefill after the one at ``place`` without another prefill between."""
    found: list[int] = []
    reached = {place}
    for index, own in enumerate(placed):
        if index not in reached and reached & set(own.after):
            if own.prefills:
                found.append(index)
            else:
                reached.add(index)
    return found


def _claim(
    place: int,
    targets: list[int],
    placed: Sequence[PlacedStage],
    contexts: Mapping[int, ContextEdge],
    problems: list[str],
) -> bool:
    """Append a problem where a context has two prefills, or a prefill two contexts; tell whether there is one."""
    whole, key = len(problems), placed[place].stage.key
    reading = np.zeros_like(placed[place].tokens)
    for target in targets:
        own = placed[target]
        if target in contexts:
            other = placed[contexts[target].source].name
            problems.append(
                f"{key}: {own.name!r} has the context of {other!r} already; expected one retrieval before it"
            )
        reading += 1 if own.taken is None else own.taken
    if reading.max(initial=0) > 1:
        names = " and ".join(repr(placed[target].name) for target in targets)
        problems.append(f"{key}: {names} would both load its context; expected one prefill after it")
    return len(problems) > whole


def _per_token(
    targets: Sequence[int], placed: Sequence[PlacedStage], pools: Sequence[PoolConfig]
) -> Ints | float:
    """Return the KV bytes of a token, of the model that prefills each request."""
    rate: Ints | float = 0.0
    for target in reversed(targets):
        pool, taken = pools[placed[target].pool], placed[target].taken
        shape = kind_of(pool).kv_shape(pool)
        assert shape is not None, "checked by the kind of the pool that prefills"
        own = shape.bytes_per_token
        rate = own if taken is None or target == targets[-1] else np.where(taken, own, rate)
    return rate


def _lookup(
    own: PlacedStage,
    params: KVRetrieval,
    per_token: Ints | float,
    pool: MemoryPool,
    requests: Requests,
    rng: np.random.Generator,
) -> KVLookup:
    sizes = RequestSizes(
        requests.input_tokens,
        requests.output_tokens,
        requests.output_tokens,
        rng,
        session=requests.session,
        said_tokens=said_tokens(requests),
    )
    drawn = params.draw(sizes)
    assert np.array_equal(drawn.tokens, own.tokens)  # as when the stage was materialized
    size = _bytes(drawn.tokens, per_token)
    if params.hits is None:
        kept = drawn.tokens
        if params.context_tokens is None:  # the conversation: its last token is never computed
            kept = requests.input_tokens + requests.output_tokens - 1
        everything = None if pool.begins_with == "nothing" else drawn.all_tokens
        return KVLookup(
            drawn.tokens,
            size,
            key=drawn.key,
            kept_tokens=kept,
            kept_bytes=_bytes(kept, per_token),
            added=params.context_tokens is not None,
            all_tokens=everything,
            all_bytes=None if everything is None else _bytes(everything, per_token),
        )
    shares: list[float] = []
    left = 1.0
    for tier in pool.tiers:
        hit = params.hits.get(tier, 0.0)
        shares.append(left * hit)
        left *= 1.0 - hit
    if not params.expected:
        place = np.searchsorted(np.cumsum(shares), drawn.chance, side="right")
        return KVLookup(drawn.tokens, size, tier=np.where(place < len(shares), place, -1).astype(np.int64))
    tiers = [tier_spec(name, own) for name, own in pool.tiers.items()]
    expected_ns = [
        round(
            math.fsum(
                share * (tier.lookup_ns + tier.read_ns(each))
                for share, tier in zip(shares, tiers, strict=True)
            )
        )
        for each in size.tolist()
    ]
    return KVLookup(
        drawn.tokens,
        size,
        shares=tuple(shares),
        expected_ns=np.array(expected_ns, dtype=np.int64),
        expected_tokens=np.rint(math.fsum(shares) * drawn.tokens).astype(np.int64),
    )


def _bytes(tokens: Ints, per_token: Ints | float) -> Ints:
    size: Ints = np.ceil(tokens * per_token).astype(np.int64)
    return size


def _check_capacity(
    lookup: KVLookup, taken: object, name: str, pool: MemoryPool, problems: list[str]
) -> None:
    """Every tier that contexts may be kept in must hold the largest of them."""
    if lookup.kept_bytes is None:
        return
    sizes = lookup.kept_bytes if taken is None else lookup.kept_bytes[cast(Ints, taken)]
    largest = int(sizes.max(initial=0))
    problems.extend(
        f"cluster.pools.{name}.tiers.{tier}.capacity_gb: {own.capacity_gb:g} is below the "
        f"{bytes_to_gb(largest):,.3g} GB of the largest context"
        for tier, own in pool.tiers.items()
        if gb_to_bytes(own.capacity_gb) < largest
    )
