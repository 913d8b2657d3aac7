"""Builds the clients of a pool of SGLang's with ranks of data-parallel attention: both sides, or one of them."""

from __future__ import annotations

from collections.abc import Callable

from hermes_flow.pools.client import Calls
from hermes_flow.pools.llm.decided_steps import StepScheduler
from hermes_flow.pools.llm.deciding_client import DecidingClient
from hermes_flow.pools.llm.rank_budget import RankBudget, Rooms
from hermes_flow.pools.llm.ranked_deciding_client import client_of_side
from hermes_flow.pools.llm.ranked_scheduler import RankedScheduler
from hermes_flow.pools.llm.sglang.decode_side import DecodeScheduler
from hermes_flow.pools.llm.sglang.prefill_side import PrefillScheduler
from hermes_flow.pools.llm.sglang.scheduler import SGLangScheduler
from hermes_flow.pools.llm.sglang.sequence import Sequence
from hermes_flow.pools.llm.sglang.token_pool import TokenPool
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.pools import LLMClientSpec, SGLangSettings

_SCHEDULERS = {"both": SGLangScheduler, "prefill": PrefillScheduler, "decode": DecodeScheduler}


def ranked_clients(
    count: int,
    spec: LLMClientSpec,
    settings: SGLangSettings,
    tasks: LLMTasks,
    calls: Calls,
    pool: Callable[[], TokenPool],
    sequence_of: Callable[[int], Sequence],
) -> list[DecidingClient]:
    """Return ``count`` clients; each of their ranks has a scheduler, and a ``pool`` of tokens."""
    ranks, scheduler = spec.attention_ranks, _SCHEDULERS[settings.side]
    kind = client_of_side(settings.side)

    def schedulers() -> RankedScheduler:
        each: list[StepScheduler] = [
            scheduler(settings, pool(), spec.max_num_seqs, overlap=bool(spec.lookahead)) for _ in range(ranks)
        ]
        rooms = spec.rank_routing == "follow_bootstrap_room"
        turns = Rooms(ranks, settings.room_seed) if rooms else RankBudget(ranks)
        return RankedScheduler(each, turns, by_queue=spec.rank_routing == "shortest_queue")

    return [kind(i, spec, tasks, calls, schedulers(), sequence_of) for i in range(count)]
