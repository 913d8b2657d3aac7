"""The kind ``endpoint``: a model behind somebody else's API, with limits per minute and prices per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from hermes_flow.config.pools import pool_kinds
from hermes_flow.config.schema import Cluster
from hermes_flow.pools.client import Calls, column_of
from hermes_flow.pools.endpoint.check import check_endpoint, check_handover
from hermes_flow.pools.endpoint.client import EndpointClient, EndpointTasks
from hermes_flow.pools.endpoint.lower import draw_ns, lower_endpoint
from hermes_flow.pools.endpoint.record import endpoint_summary, record_endpoint
from hermes_flow.pools.endpoint.schema import EndpointPool
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.pools.kind import Asked, AskedWork, Lowering, PoolKind
from hermes_flow.pools.llm.work import llm_work
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import ClientRecord
from hermes_flow.routing import RoutingPolicy
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.placed import PlacedStage


@pool_kinds.register("endpoint")
class EndpointKind(PoolKind):
    """The kind of pool for any LLM stage on an endpoint; prefill and decode are one call."""

    schema: ClassVar[type[EndpointPool]] = EndpointPool
    work = "llm"
    takes_back = True
    tries_again = True
    notifies = True

    def check(self, name: str, pool: EndpointPool, cluster: Cluster, problems: list[str]) -> None:
        """Check its limits, latencies and prices."""
        check_endpoint(pool, f"cluster.pools.{name}", problems)

    def check_handover(self, theirs: str, ours: str, cluster: Cluster, problems: list[str]) -> None:
        """Append a problem: no KV moves to or from an endpoint."""
        endpoint = next(name for name in (ours, theirs) if cluster.pools[name].kind == "endpoint")
        check_handover(theirs, ours, endpoint, problems)

    def check_context(
        self, name: str, pool: EndpointPool, retrieval: Stage, prefill: Stage, problems: list[str]
    ) -> None:
        """Append a problem: no KV can be loaded into an endpoint."""
        problems.append(
            f"{prefill.key}: pool {name!r} is an endpoint, into which the KV that {retrieval.name!r} retrieves "
            "cannot be loaded; expected a pool of kind 'llm'"
        )

    def lower_work(
        self, placed: Sequence[PlacedStage], places: Sequence[int], lowering: Lowering
    ) -> AskedWork:
        """Return the prompts and answers of each stage."""
        return AskedWork({place: llm_work(placed[place]) for place in places})

    def lower(
        self,
        name: str,
        pool: EndpointPool,
        routing: RoutingPolicy,
        asked: Sequence[Asked],
        lowering: Lowering,
    ) -> Pool:
        """Return the pool as the simulator sees it."""
        return lower_endpoint(name, pool, routing)

    def unservable(self, name: str, pool: EndpointPool, lowered: Pool, op: Op) -> dict[int, str]:
        """Return the requests with a call of more tokens than the limit of a whole minute."""
        limit = pool.tokens_per_minute
        if limit is None or op.llm is None:
            return {}
        too_long = op.llm.prompt + op.llm.output > limit
        if op.taken is not None:
            too_long &= op.taken
        reason = f"larger than the tokens_per_minute of {name} ({limit:,} tokens)"
        return dict.fromkeys(np.flatnonzero(too_long).tolist(), reason)

    def build(
        self, program: Program, index: int, ops: Sequence[int], calls: Calls
    ) -> tuple[EndpointTasks, list[EndpointClient]]:
        """Return the calls with drawn latencies, and the accounts."""
        pool, own = program.pools[index], [program.ops[number] for number in ops]
        spec, count = pool.client, len(program.requests)
        assert isinstance(spec, EndpointClientSpec)
        asked = [op.llm for op in own if op.llm is not None]
        tasks = EndpointTasks(
            column_of([work.prompt for work in asked]),
            column_of([work.output for work in asked]),
            column_of([draw_ns(spec.ttft_ms, "ttft", pool.name, op, count, program.seed) for op in own]),
            column_of([draw_ns(spec.tpot_ms, "tpot", pool.name, op, count, program.seed) for op in own]),
        )
        return tasks, [EndpointClient(i, spec, tasks, calls, pool.name) for i in range(pool.count)]

    def record(self, pool: int, spec: EndpointClientSpec, client: EndpointClient) -> ClientRecord:
        """Return an account's calls, its tokens and their cost."""
        return record_endpoint(pool, spec, client)

    def summarize(self, lowered: Pool, records: Sequence[ClientRecord]) -> dict[str, Any]:
        """Return calls, rejections, waits and costs, as the section ``endpoints``."""
        return {"endpoints": endpoint_summary(records)}
