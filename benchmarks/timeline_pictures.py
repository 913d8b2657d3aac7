"""What the timelines show: the requests, the strategies, and which of them share a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

Requests: TypeAlias = Sequence[
    tuple[int, ...]
]  # arrival in ms, prompt, answer, class, session, begins as session

# Two long prompts among short ones; all at once, with answers that outgrow 240 blocks; unlike ones for two seats.
LONG_AND_SHORT: Requests = (
    (0, 600, 16, 0),
    (4, 1500, 10, 0),
    (30, 400, 22, 0),
    (48, 3000, 8, 0),
    (60, 500, 14, 0),
    (95, 900, 8, 0),
    (130, 2500, 10, 0),
    (140, 300, 10, 0),
)
GROWING: Requests = tuple((5 * number, 450, 40 + 5 * number, 0) for number in range(8))
UNLIKE: Requests = (
    (0, 900, 20, 1),
    (2, 700, 24, 1),
    (6, 2000, 8, 1),
    (8, 300, 30, 1),
    (10, 1200, 6, 0),
    (12, 500, 12, 1),
    (60, 250, 16, 0),
    (70, 1500, 4, 1),
)
# Two long prompts apart, short ones that come in turn with them. Conversations whose turns extend each
# other, one of which begins as another does.
CROSSING: Requests = (
    (0, 1800, 70, 0),
    (4, 250, 6, 0),
    (8, 2200, 6, 0),
    (12, 300, 45, 0),
    (16, 1500, 8, 0),
    (40, 200, 60, 0),
    (70, 900, 10, 0),
    (110, 400, 12, 0),
    (115, 1300, 16, 0),
    (160, 350, 8, 0),
    (330, 500, 12, 0),
    (335, 900, 6, 0),
    (338, 700, 20, 0),
    (420, 300, 6, 0),
)
CONVERSATIONS: Requests = (
    (0, 1600, 8, 0, 0),
    (5, 1200, 8, 0, 1),
    (10, 700, 30, 0, 2),
    (40, 1800, 8, 0, 3, 0),
    (120, 1900, 8, 0, 1),
    (130, 2100, 8, 0, 0),
    (180, 1100, 20, 0, 2),
    (260, 2500, 8, 0, 1),
    (265, 1500, 12, 0, 2),
    (270, 2900, 8, 0, 0),
)
BASE = ("pipeline=llm", "slo=none", "output.steps=true", "cluster.pools.{pool}.max_num_batched_tokens=1024")


@dataclass(frozen=True, slots=True)
class Panel:
    """One strategy: its title and the overrides that make it."""

    title: str
    overrides: Sequence[str]


@dataclass(frozen=True, slots=True)
class Picture:
    """Panels below each other on one time axis."""

    name: str
    title: str
    panels: Sequence[Panel]
    requests: Requests = LONG_AND_SHORT
    model: str = "Llama-3.1 8B on H100"
    by_client: bool = False  # requests below the client that decodes them, instead of all below all steps


def _llm(*keys: str) -> list[str]:
    return [f"cluster.pools.llm.{key}" for key in keys]


PAIR = (
    "cluster=disaggregated",
    "network.devices_per_node=1",
    "network.rack.efficiency=0.1",
    "cluster.pools.decode.max_num_batched_tokens=1024",
)
TIGHT = ("kv_blocks=240", "max_num_batched_tokens=4096")
TWO_SEATS = ("max_num_seqs=2",)
LARGE = ("model=llama3_70b", *_llm("tensor_parallel=4", "max_num_seqs=64"))
TWO_CLIENTS = _llm("count=2")
CACHED = (*TWO_CLIENTS, *_llm("prefix_cache=true"))
FAR = (
    "cluster=disaggregated",
    "cluster.pools.decode.count=2",
    "network.devices_per_node=2",
    "network.rack.efficiency=0.05",
    "cluster.pools.decode.max_num_batched_tokens=1024",
)


def _routed(policy: str, says: str, layout: Sequence[str] = TWO_CLIENTS) -> Panel:
    name = policy.removeprefix("{policy: ").partition(",")[0]
    return Panel(f"{name}: {says}", (*layout, f"cluster.routing={policy}"))


PICTURES_TO_DRAW = (
    Picture(
        "batching",
        "Batching policies",
        (
            Panel(
                "static: a gang is padded, prefilled, decoded to its last end",
                _llm("batching=static", "max_num_batched_tokens=8192"),
            ),
            Panel("continuous: waiting prompts first, whole, by themselves", _llm("batching=continuous")),
            Panel("mixed: whole prompts join the decodes", _llm("batching=mixed")),
            Panel("chunked: prompts are cut to a budget of 1,024 tokens a step", _llm("batching=chunked")),
        ),
    ),
    Picture(
        "layouts",
        "Several devices",
        (
            Panel("two clients behind a router", _llm("count=2")),
            Panel("disaggregated: one prefills, one decodes; yellow: KV on its way", PAIR),
            Panel("the same, KV leaves layer by layer", (*PAIR, "cluster.kv_transfer=layerwise")),
            Panel("tensor parallel 2: both devices on every step", _llm("tensor_parallel=2")),
            Panel(
                "pipeline parallel 2: two micro-batches in flight, a row each", _llm("pipeline_parallel=2")
            ),
        ),
    ),
    Picture(
        "memory",
        "When 240 KV blocks are not enough",
        (
            Panel("recompute: what is preempted is prefilled again", _llm(*TIGHT)),
            Panel("swap: it is copied to the host and back", _llm(*TIGHT, "preemption=swap")),
            Panel("none: whole sequences are reserved, fewer run", _llm(*TIGHT, "preemption=none")),
        ),
        GROWING,
    ),
    Picture(
        "packing",
        "Who comes first: two seats",
        (
            Panel("fcfs", _llm(*TWO_SEATS)),
            Panel("shortest_prompt", _llm(*TWO_SEATS, "packing=shortest_prompt")),
            Panel("least_work_left, an oracle", _llm(*TWO_SEATS, "packing=least_work_left")),
            Panel("priority: the fifth and the seventh are urgent", _llm(*TWO_SEATS, "packing=priority")),
            Panel(
                "earliest_deadline: 50 ms for urgent ones, 70 ms for others",
                _llm(*TWO_SEATS, "packing={order: earliest_deadline, deadline_ms: {0: 50, 1: 70}}"),
            ),
        ),
        UNLIKE,
    ),
    Picture(
        "speculation",
        "Speculative decoding",
        (
            Panel("without: a token a step", LARGE),
            Panel(
                "a draft proposes 4 tokens, of which 70 % are accepted: 2.8 tokens a step",
                (*LARGE, "+model@cluster.pools.llm.speculative.draft=llama3_8b"),
            ),
        ),
        GROWING,
        "Llama-3.1 70B on 4 H100",
    ),
    Picture(
        "routing",
        "Routing by load, two clients",
        (
            _routed("round_robin", "in turn"),
            _routed("random", "by lot"),
            _routed(
                "power_of_two",
                "the less loaded of two drawn: of two clients as least_requests, but for equals",
            ),
            _routed("least_requests", "fewest unfinished requests"),
            _routed("least_tokens", "fewest prompt tokens to come, one per decode"),
            _routed("least_input_tokens", "fewest prompt tokens, computed or not"),
            _routed("least_kv", "fewest tokens of KV"),
            _routed("least_expected_work", "fewest tokens left if answers are as those before"),
            _routed("least_work_left", "fewest tokens left, an oracle"),
            _routed(
                "{policy: heavy_light, threshold_tokens: 1000}", "prompts above 1,000 tokens to the first"
            ),
        ),
        CROSSING,
        by_client=True,
    ),
    Picture(
        "affinity",
        "Routing by what a client has, two clients",
        (
            _routed("least_requests", "a turn misses what the other client computed", CACHED),
            _routed("prefix_affinity", "to the client that was sent the most of the prompt", CACHED),
            _routed("session_affinity", "to the client of the first turn", CACHED),
            _routed(
                "{policy: weighted, weights: {prefix_affinity: 1, least_input_tokens: 2}}",
                "what it was sent, against its load",
                CACHED,
            ),
            Panel(
                "nearest: decode/0 is in the prefill's node, decode/1 over a slow link, and is left alone",
                (*FAR, "cluster.pools.decode.routing=nearest"),
            ),
            Panel(
                "weighted: nearest against least_requests",
                (
                    *FAR,
                    "cluster.pools.decode.routing={policy: weighted, weights: {nearest: 1, least_requests: 2}}",
                ),
            ),
        ),
        CONVERSATIONS,
        by_client=True,
    ),
)
