"""Phase 2: checks that the config describes a system that can run, and reports every problem with its key."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import product

from hermes_flow.compiler.check_memory import check_retrievals
from hermes_flow.compiler.check_routing import Routings, check_routing
from hermes_flow.compiler.check_stages import check_stages
from hermes_flow.compiler.placement import Placement, place
from hermes_flow.compiler.shared_routers import Routers
from hermes_flow.config.pools import PoolConfig
from hermes_flow.config.schema import Cluster
from hermes_flow.errors import ConfigError
from hermes_flow.pools.device_sharing import check_device_sharing
from hermes_flow.pools.hosts import check_hosts
from hermes_flow.pools.kind import kind_called, kind_of
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.requests import Requests
from hermes_flow.stages import stage_kinds
from hermes_flow.stages.graph import Graph, Stage


@dataclass(frozen=True, slots=True)
class Checked:
    """The decisions of the checks, for the later phases.

    The pools that serve each stage, those that share a router, the routing policies, and by pool what its kind has
    ``reckoned`` (see PoolKind.check).
    """

    placement: Placement
    routers: Routers
    routings: Routings
    reckoned: Mapping[str, object]


def check(graph: Graph, cluster: Cluster, problems: list[str]) -> Checked:
    """Append all problems to ``problems``, which holds those of parsing, and return the decisions."""
    whole = not problems
    routings = Routings(cluster)
    reckoned: dict[str, object] = {}
    for name, pool in cluster.pools.items():
        _check_names(name, pool, cluster, routings, problems)
        reckoned[name] = kind_of(pool).check(name, pool, cluster, problems)
    check_hosts(cluster, problems)
    check_device_sharing(cluster, problems)
    placement, routers = place(graph, cluster, problems)
    _check_llm_stages(graph, placement, routers, cluster, problems)
    everywhere = _everywhere(placement, routers)
    check_stages(graph, everywhere, cluster, problems)
    check_retrievals(graph, everywhere, cluster, routings, problems)
    for first, names in routers.items():
        clients = sum(cluster.pools[name].count for name in names)
        check_routing(first, cluster, routings, problems, clients)
    if whole:
        _check_orphans(graph, problems)
    return Checked(placement, routers, routings, reckoned)


def _everywhere(placement: Placement, routers: Routers) -> dict[str, dict[str, str]]:
    """Return the placement with every pool that shares a router, under keys of their own."""
    return {
        stage: {
            f"{model}{number or ''}": name
            for model, pool in pools.items()
            for number, name in enumerate(routers.get(pool, (pool,)))
        }
        for stage, pools in placement.items()
    }


def check_prefixes(requests: Requests, cluster: Cluster, problems: list[str]) -> None:
    """Append a problem for every pool whose blocks the workload's prefix blocks cannot be cut into."""
    if requests.prefixes is None:
        return
    tokens = requests.prefixes.block_tokens
    for name, pool in cluster.pools.items():
        kind_of(pool).check_prefixes(name, pool, tokens, problems)


def _check_names(
    name: str, pool: PoolConfig, cluster: Cluster, routings: Routings, problems: list[str]
) -> None:
    if kind_of(pool).beside(pool) is None:
        check_routing(name, cluster, routings, problems)
    for kind in pool.serves:
        try:
            stage_kinds.find(kind, f"cluster.pools.{name}.serves")
        except ConfigError as error:
            if str(error) not in problems:
                problems.append(str(error))


def _check_llm_stages(
    graph: Graph, placement: Placement, routers: Routers, cluster: Cluster, problems: list[str]
) -> None:
    for stage in graph.stages.values():
        before = stage.options.after
        if stage.role == "answer" and all(name in graph.stages for name in before):
            if len(before) != 1 or graph.stages[before[0]].role != "prompt":
                problems.append(
                    f"{stage.key}.after: a decode must follow exactly one prefill and no other stage"
                )
            else:
                _check_pair(stage, before[0], placement, routers, cluster, problems)
        if stage.role == "prompt":
            decodes = [name for name in graph.successors(stage.name) if graph.stages[name].role == "answer"]
            others = [name for name in graph.successors(stage.name) if name not in decodes]
            if len(decodes) > 1:
                problems.append(
                    f"{stage.key}: {' and '.join(decodes)} both decode its prompt; expected one decode per prefill"
                )
            if decodes and others:
                problems.append(
                    f"{graph.stages[others[0]].key}.after: {stage.name!r} is followed by the decode "
                    f"{decodes[0]!r}; put {others[0]!r} after that"
                )


def _check_pair(
    decode: Stage,
    prefill: str,
    placement: Placement,
    routers: Routers,
    cluster: Cluster,
    problems: list[str],
) -> None:
    """A decode on a pool of its own must be able to use the KV that its prefill computed."""
    before, after = placement.get(prefill, {}), placement.get(decode.name, {})
    for model, ours in after.items():
        theirs = before.get(model)
        if theirs is None and before:
            problems.append(
                f"{decode.key}.pool: {ours!r} decodes what {' and '.join(before.values())} have prefilled; "
                "expected a prefill and a decode pool for each model"
            )
        elif theirs is not None and theirs != ours:
            for sender, receiver in product(routers.get(theirs, (theirs,)), routers.get(ours, (ours,))):
                for kind in dict.fromkeys((cluster.pools[sender].kind, cluster.pools[receiver].kind)):
                    kind_called(kind).check_handover(sender, receiver, cluster, problems)


def _check_orphans(graph: Graph, problems: list[str]) -> None:
    sizes = Counter(graph.part_of(name) for name in graph.stages)
    problems.extend(
        f"{stage.key}: nothing comes before or after it; connect it with 'after'"
        for stage in graph.stages.values()
        if sizes[graph.part_of(stage.name)] > 1
        and not stage.options.after
        and not graph.successors(stage.name)
    )
