"""One prefill client and one decode client: the naive clients in a row, and the same two as a Program.

Nobody else is on the link between them, so that the second client's arrivals follow from the first one's steps:
on a wide link a transfer takes its latency and nothing else, on a narrow one KV waits for other KV.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from oracles.llm_client import PLAIN, Look, OraclePolicy, OracleRequest, OracleResult, simulate_llm_client
from oracles.lone_link import Departure, simulate_lone_link
from oracles.random_systems import RandomSystem, random_system

from hermes_flow.pools.llm.packing import packing_orders
from hermes_flow.program.network import Network, NetworkLevel
from hermes_flow.program.ops import KVEdge, Op, ServedStage
from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.program.prefixes import Prefixes
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.program.work import Generate
from hermes_flow.routing.round_robin import RoundRobin

WIDE = 10**15  # bytes per ns
NARROW = 720_720  # bytes per ns: any number of transfers up to 16 have whole rates


@dataclass(frozen=True)
class PrefillDecodePair:
    """Two clients, what each is told, and the requests, which fit either of them alone.

    KV leaves layer by layer where ``layers`` is set, else in full.
    """

    prefill: LLMClientSpec
    decode: LLMClientSpec
    requests: list[OracleRequest]
    latency_ns: int
    prefill_policy: OraclePolicy = PLAIN
    decode_policy: OraclePolicy = PLAIN
    layers: int | None = None
    kv_bytes_per_token: int = 3
    bytes_per_ns: int = WIDE
    first_at_decode: bool = False


@dataclass(frozen=True)
class PairResult:
    """What each client did; ``decoded`` maps a request to its place in ``decode``'s result.

    ``transfer_ns`` is how long each of these waited for its KV after its prefill, and ``moved`` the bytes that came:
    without the blocks that the decode client had when they set out.
    """

    prefill: OracleResult
    decode: OracleResult
    decoded: dict[int, int]
    transfer_ns: list[int]
    moved: dict[int, int]


def random_pair(
    rng: random.Random,
    batching: str,
    lookahead: int,
    prefill_policy: OraclePolicy = PLAIN,
    decode_policy: OraclePolicy = PLAIN,
) -> PrefillDecodePair:
    """Draw two clients; ``batching`` and ``lookahead`` are the decode client's, the other's are drawn."""
    first = random_system(rng, rng.choice(["chunked", "continuous", "mixed"]), policy=prefill_policy)
    second = random_system(rng, batching, lookahead, policy=decode_policy)
    while _longest(second) < _longest(first):  # its cost table must cover the first one's requests
        second = random_system(rng, batching, lookahead, policy=decode_policy)
    longest = _longest(first)
    if decode_policy.prefix_cache:  # the keys are those of the first one's blocks
        second = replace(second, spec=replace(second.spec, block_size=first.spec.block_size))
    return PrefillDecodePair(
        prefill=_tight(first.spec, longest, rng),
        decode=_tight(second.spec, longest, rng),
        requests=first.requests,
        latency_ns=rng.choice([0, 0, 1, 10, 5000]),
        prefill_policy=first.policy,
        decode_policy=_copying_takes_time(second.policy),
    )


def on_a_narrow_link(pair: PrefillDecodePair, layers: int | None, rng: random.Random) -> PrefillDecodePair:
    """Return the pair with a link over which a token's KV takes about as long as a step, or far less.

    There are no more layers than the shortest step has nanoseconds.
    """
    step_ns = pair.prefill.cost.tokens_ps[1] / PS_PER_NS
    size = round(NARROW * step_ns * rng.choice([0.01, 0.1, 0.5, 2])) + rng.randint(1, 9)
    layers = None if layers is None else min(layers, max(1, int(step_ns)))
    return replace(pair, layers=layers, kv_bytes_per_token=size, bytes_per_ns=NARROW)


def simulate_pair(pair: PrefillDecodePair) -> PairResult:
    """Run the prefill client alone, then the link, then the decode client with what that hands over."""
    asked = [
        replace(request, output=1, awaited=pair.first_at_decode or request.output > 1)
        for request in pair.requests
    ]
    prefill = simulate_llm_client(pair.prefill, asked, pair.prefill_policy)
    begun, over = _departures(pair, prefill, {})
    present: dict[int, int] = {}
    if pair.decode_policy.prefix_cache:
        # What is found as a prompt sets out follows from what came before.
        asking = sorted(over, key=_sets_out_ns)
        for departure in asking:
            present[departure.request] = _present(pair, prefill, departure, asking, present)
        begun, over = _departures(pair, prefill, present)
    delivered = simulate_lone_link(begun, over, pair.bytes_per_ns, pair.latency_ns)
    handed = [_handed(pair, pair.requests[index], at_ns) for at_ns, index in delivered]
    decode = simulate_llm_client(pair.decode, handed, pair.decode_policy)
    return PairResult(
        prefill,
        decode,
        decoded={index: place for place, (_, index) in enumerate(delivered)},
        transfer_ns=[at_ns - prefill.finish_ps[index] // PS_PER_NS for at_ns, index in delivered],
        moved={departure.request: departure.early + departure.rest for departure in over},
    )


def _sets_out_ns(departure: Departure) -> int:
    return departure.over_ns if departure.first_layer_ns is None else departure.first_layer_ns


def _present(
    pair: PrefillDecodePair,
    prefill: OracleResult,
    departure: Departure,
    asking: list[Departure],
    known: dict[int, int],
) -> int:
    """Return how many tokens of a prompt the decode client has as its KV sets out, after those that are ``known``."""
    at_ns = _sets_out_ns(departure)
    earlier = {each.request for each in asking if each.request in known}
    begun, over = (
        [each for each in some if each.request in earlier] for some in _departures(pair, prefill, known)
    )
    delivered = simulate_lone_link(begun, over, pair.bytes_per_ns, pair.latency_ns)
    handed = [_handed(pair, pair.requests[index], came) for came, index in delivered if came <= at_ns]
    request, size = pair.requests[departure.request], pair.decode.block_size
    full_blocks = (request.prompt - pair.first_at_decode) // size
    look = Look(at_ns * PS_PER_NS, request.block_keys[:full_blocks])
    simulate_llm_client(pair.decode, handed, pair.decode_policy, [look])
    return look.found * size


def _departures(
    pair: PrefillDecodePair, prefill: OracleResult, present: dict[int, int]
) -> tuple[list[Departure], list[Departure]]:
    """Return what leaves early, in the order of first layers, and all that leaves, in the order of last ones.

    The first layer is computed when its share of the first step is over. A request of one token sends nothing.
    """
    first_layer_ns: dict[int, int] = {}
    last: list[int] = []
    for step in prefill.steps:
        for index in step.tokens:
            if pair.layers is not None and index not in first_layer_ns:
                first_layer_ns[index] = (
                    step.start_ps + (step.end_ps - step.start_ps) // pair.layers
                ) // PS_PER_NS
            if prefill.finish_ps[index] == step.end_ps and index not in last:
                last.append(index)
    departures = {}
    for index in last:
        prompt = pair.requests[index].prompt
        size = prompt * pair.kv_bytes_per_token
        early = 0 if pair.layers is None else size * (pair.layers - 1) // pair.layers
        missing = prompt - present.get(index, 0)
        size, early = -(-size * missing // prompt), -(-early * missing // prompt)
        departures[index] = Departure(
            index, prefill.finish_ps[index] // PS_PER_NS, size - early, first_layer_ns.get(index), early
        )
    several = [index for index in last if pair.first_at_decode or pair.requests[index].output > 1]
    begun = [departures[index] for index in first_layer_ns if index in set(several)]
    return begun, [departures[index] for index in several]


def _handed(pair: PrefillDecodePair, request: OracleRequest, at_ns: int) -> OracleRequest:
    """Return the request as the decode client receives it: but for its last token, or with its first answer."""
    keys = request.block_keys if pair.decode_policy.prefix_cache else ()
    come = replace(request, arrival_ns=at_ns, block_keys=keys)
    if pair.first_at_decode:
        return replace(come, loaded=request.prompt - 1)
    return replace(come, prefilled=True)


def pair_program(pair: PrefillDecodePair) -> Program:
    """Return the two clients as a Program, on one node."""
    requests = pair.requests
    prompt = np.array([request.prompt for request in requests], dtype=np.int64)
    output = np.array([request.output for request in requests], dtype=np.int64)
    arrival = np.array([request.arrival_ns for request in requests], dtype=np.int64)
    level = NetworkLevel(efficiency=1.0, latency_ns=pair.latency_ns)
    kv_bytes, early, rates = prompt * pair.kv_bytes_per_token, None, (float(pair.bytes_per_ns),) * 2
    prefill = pair.prefill
    if pair.layers is not None:
        prefill = replace(prefill, kv_layers=pair.layers)
        early = kv_bytes * (pair.layers - 1) // pair.layers
    return Program(
        name="pair",
        pipeline="llm",
        cluster="pair",
        pools=(
            _pool("prefill", prefill, pair.prefill_policy),
            _pool("decode", pair.decode, pair.decode_policy),
        ),
        ops=(
            Op(
                name="prefill",
                serves=(ServedStage("prefill", "prefill"),),
                pool=0,
                after=(),
                work=Generate(prompt, np.ones_like(output)),
            ),
            Op(
                name="decode",
                serves=(ServedStage("decode", "decode"),),
                pool=1,
                after=(0,),
                work=Generate(prompt, output),
                taken=None if pair.first_at_decode else output > 1,
                kv=KVEdge(0, kv_bytes, early, emits_first=pair.first_at_decode),
            ),
        ),
        requests=Requests(arrival, prompt, output, prefixes=_prefixes(pair)),
        slo=SLOBounds("none"),
        network=Network("lone", ("prefill/0", "decode/0"), (0, 0), (0,), rates, rates, level, level, level),
    )


def _longest(system: RandomSystem) -> int:
    return max(request.prompt + request.output for request in system.requests)


def _tight(spec: LLMClientSpec, longest: int, rng: random.Random) -> LLMClientSpec:
    return replace(spec, kv_blocks=-(-longest // spec.block_size) + rng.choice([0, 0, 1, 2, 5]))


def _copying_takes_time(policy: OraclePolicy) -> OraclePolicy:
    if policy.preemption != "swap":
        return policy
    return replace(policy, swap_ps_per_block=policy.swap_ps_per_block or PS_PER_NS)


def _pool(name: str, spec: LLMClientSpec, policy: OraclePolicy) -> Pool:
    packing = None
    if policy.packing != "fcfs":
        packing = packing_orders.parse({"order": policy.packing}, "packing")
    client = replace(
        spec,
        packing=packing,
        preemption=policy.preemption,
        swap_ps_per_block=policy.swap_ps_per_block,
        kv_import_ps=policy.import_ps,
        kv_export_ps=policy.export_ps,
        prefix_cache=policy.prefix_cache,
    )
    return Pool(name=name, hardware="any", count=1, routing=RoundRobin(), client=client)


def _prefixes(pair: PrefillDecodePair) -> Prefixes | None:
    if not pair.prefill_policy.prefix_cache:
        return None  # the requests have no keys
    number: dict[object, int] = {}
    keys = [[number.setdefault(key, len(number)) for key in request.block_keys] for request in pair.requests]
    return Prefixes(
        ids=np.array([key for row in keys for key in row], dtype=np.int64),
        offsets=np.cumsum([0, *(len(row) for row in keys)]),
        block_tokens=pair.prefill.block_size,
    )
