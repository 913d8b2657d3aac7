"""One prefill client and one decode client: two naive clients and a link, and the same as a Program.

KV that waits for blocks of the decode client keeps those of the prefill client. Nobody else is on the link between
them: on a wide link a transfer takes its latency and nothing else, on a narrow one KV waits for other KV.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import numpy as np
from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest
from oracles.lone_link import LoneLink
from oracles.random_systems import RandomSystem, random_system
from oracles.stepped_client import SteppedClient

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
    """What each client did, and when the prompt of each request was complete, had blocks, and was there, in ns.

    ``moved`` are the bytes that came: without the blocks that the decode client had as it gave the others.
    """

    prefill: SteppedClient
    decode: SteppedClient
    over: dict[int, int]
    granted: dict[int, int]
    delivered: dict[int, int]
    moved: dict[int, int]

    @property
    def decoded(self) -> list[int]:
        """The requests whose KV moved, in the order in which it came."""
        return list(self.delivered)

    @property
    def transfer_ns(self) -> list[int]:
        """How long each of these waited for its KV after its prefill was over and there were blocks for it."""
        return [at - max(self.over[index], self.granted[index]) for index, at in self.delivered.items()]

    @property
    def pushed_back(self) -> list[int]:
        """The requests of these whose KV had no blocks within a step's time after their prefill."""
        return [index for index in self.delivered if self.granted[index] > self.over[index]]


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
    """Run both clients and the link between them, one nanosecond after the other."""
    return _PairRun(pair).result()


class _PairRun:
    """Both clients, the link, and how far each request is.

    At one instant first layers come before prompts that are complete, these before what happens on the link, and that
    before whatever the clients decide.
    """

    def __init__(self, pair: PrefillDecodePair) -> None:
        self.pair = pair
        several = [pair.first_at_decode or request.output > 1 for request in pair.requests]
        asked = [
            replace(request, output=1, awaited=more)
            for request, more in zip(pair.requests, several, strict=True)
        ]
        self.prefill = SteppedClient(pair.prefill, pair.prefill_policy, asked)
        self.prefill.scheduler.holds = True
        self.decode = SteppedClient(
            pair.decode, pair.decode_policy, [_handed(pair, request) for request in pair.requests]
        )
        self.link = LoneLink(pair.bytes_per_ns)
        self.several = several
        self.seen = 0  # steps of the prefill client whose ends and first layers are known
        self.first_layers: list[tuple[int, int]] = []  # (at ns, request), not announced yet
        self.ends: list[tuple[int, int]] = []  # the same of complete prompts
        self.announced: set[int] = set()
        self.over: dict[int, int] = {}  # request → when its prompt was complete
        self.granted: dict[int, int] = {}
        self.early_gone: set[int] = set()
        self.moved: dict[int, int] = {}
        self.delivered: dict[int, int] = {}  # in the order in which KV came

    def result(self) -> PairResult:
        for index, request in enumerate(self.pair.requests):
            self.prefill.submit(index, request.arrival_ns)
        while (now_ns := self._next_ns()) is not None:
            self._hand_over(now_ns)
            while self.link.next_ns() == now_ns:
                for what, index in self.link.run(now_ns):
                    self._arrived(what, index, now_ns)
            for client in (self.prefill, self.decode):
                client.run_until((now_ns + 1) * PS_PER_NS)
            self._look_at_steps()
            for sequence, blocks in self.decode.grants:
                self._set_out(sequence.index, blocks, now_ns)
            self.decode.grants.clear()
        for client in (self.prefill, self.decode):
            assert client.scheduler.idle
            assert client.scheduler.pool.used == 0
        return PairResult(self.prefill, self.decode, self.over, self.granted, self.delivered, self.moved)

    def _next_ns(self) -> int | None:
        instants = [queue[0][0] for queue in (self.first_layers, self.ends) if queue]
        instants += [
            at // PS_PER_NS for at in (self.prefill.next_ps(), self.decode.next_ps()) if at is not None
        ]
        instants += [at for at in [self.link.next_ns()] if at is not None]
        return min(instants, default=None)

    def _hand_over(self, now_ns: int) -> None:
        while self.first_layers and self.first_layers[0][0] == now_ns:
            self._ask(self.first_layers.pop(0)[1], now_ns)
        while self.ends and self.ends[0][0] == now_ns:
            self._prompt_is_complete(self.ends.pop(0)[1], now_ns)

    def _look_at_steps(self) -> None:
        """Note the first layers and the complete prompts of steps that the prefill client has begun."""
        layers = self.pair.layers
        for start_ps, end_ps, plan in self.prefill.steps[self.seen :]:
            for index in plan.tokens:
                if layers is not None and self.several[index] and index not in self.announced:
                    self.announced.add(index)
                    self.first_layers.append(((start_ps + (end_ps - start_ps) // layers) // PS_PER_NS, index))
            emitting = [sequence.index for sequence in plan.emitting]
            self.ends += [(end_ps // PS_PER_NS, index) for index in emitting if self.several[index]]
        self.seen = len(self.prefill.steps)

    def _ask(self, index: int, now_ns: int) -> None:
        self.decode.submit(index, now_ns)

    def _prompt_is_complete(self, index: int, now_ns: int) -> None:
        self.over[index] = now_ns
        if self.pair.layers is None:
            self._ask(index, now_ns)
        elif index in self.early_gone:
            self._send_rest(index, now_ns)

    def _bytes(self, index: int) -> tuple[int, int]:
        """Return the bytes of a prompt's KV that leave early, and all of them, but for what is there."""
        pair, prompt = self.pair, self.pair.requests[index].prompt
        size = prompt * pair.kv_bytes_per_token
        early = 0 if pair.layers is None else size * (pair.layers - 1) // pair.layers
        missing = prompt - self.moved[index]
        return -(-early * missing // prompt), -(-size * missing // prompt)

    def _set_out(self, index: int, blocks: int, now_ns: int) -> None:
        """The decode client has blocks for a request: its KV, or all layers of it but the last, set out."""
        self.granted[index] = now_ns
        self.moved[index] = blocks * self.pair.decode.block_size  # what is there
        early, size = self._bytes(index)
        if self.pair.layers is None or index in self.over:
            self.link.send(size, ("all", index), now_ns, self.pair.latency_ns)
        else:
            self.link.send(early, ("early", index), now_ns, 0)

    def _send_rest(self, index: int, now_ns: int) -> None:
        early, size = self._bytes(index)
        self.link.send(size - early, ("all", index), now_ns, self.pair.latency_ns)

    def _arrived(self, what: str, index: int, now_ns: int) -> None:
        if what == "early":
            self.early_gone.add(index)
            if index in self.over:
                self._send_rest(index, now_ns)
            return
        self.moved[index] = self._bytes(index)[1]
        self.delivered[index] = now_ns
        self.prefill.let_go(index, now_ns)
        self.decode.bring(index, now_ns)


def _handed(pair: PrefillDecodePair, request: OracleRequest) -> OracleRequest:
    """Return the request as the decode client receives it: but for its last token, or with its first answer."""
    keys = request.block_keys if pair.decode_policy.prefix_cache else ()
    asking = replace(request, block_keys=keys, asks=True)
    if pair.first_at_decode:
        return replace(asking, loaded=request.prompt - 1)
    return replace(asking, prefilled=True)


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
