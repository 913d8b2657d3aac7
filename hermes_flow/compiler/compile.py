"""The compiler: it turns a Config into a Program, or reports every problem at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hermes_flow.compiler.adapters import unheeded_adapters, with_adapters
from hermes_flow.compiler.check import Checked, check, check_prefixes
from hermes_flow.compiler.combined_pipelines import check_classes, parse_parts, with_pipelines
from hermes_flow.compiler.copies import with_copies
from hermes_flow.compiler.data_edges import data_edges
from hermes_flow.compiler.failures import moves_kv, with_failures
from hermes_flow.compiler.fleets import (
    FleetSettings,
    check_load_routes,
    check_policies,
    with_fleets,
    with_most_clients,
)
from hermes_flow.compiler.fuse import fuse
from hermes_flow.compiler.image_stages import unheeded_images, unheeded_names, with_encoders, with_images
from hermes_flow.compiler.link import link
from hermes_flow.compiler.link_failures import with_link_failures
from hermes_flow.compiler.lower import lower_pools, parse_costs, place_pools, rejecting_pool, unservable
from hermes_flow.compiler.lower_network import (
    kv_edges,
    kv_groups,
    kv_handovers,
    lower_network,
    with_shared_prompts,
)
from hermes_flow.compiler.lower_slo import slo_bounds
from hermes_flow.compiler.lower_work import lower_work
from hermes_flow.compiler.materialize import materialize
from hermes_flow.compiler.needed_pools import without_unneeded
from hermes_flow.compiler.placement import Placement, model_masks, unheeded_models
from hermes_flow.compiler.prices import with_prices
from hermes_flow.compiler.rate_per_client import with_rate_per_client
from hermes_flow.compiler.retries import retry_rule
from hermes_flow.compiler.shared_routers import side_by_side
from hermes_flow.compiler.site_fleets import with_site_fleets
from hermes_flow.compiler.sites import lower_sites, unheeded_sites, with_sites
from hermes_flow.compiler.stage_tasks import Mask, StageTasks
from hermes_flow.config.physical_values import out_of_range
from hermes_flow.config.remembered import first_made
from hermes_flow.config.schema import Cluster, Config, TraceWorkload
from hermes_flow.cost import CostModel
from hermes_flow.errors import CompileError, ConfigError, HermesFlowError
from hermes_flow.pools.kind import Lowering, kind_of
from hermes_flow.program.admission import AdmissionPolicy
from hermes_flow.program.ops import LoadRoute, Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.stages.graph import Graph
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.phases import phases_of
from hermes_flow.workload.sessions import later_turns


def compile(config: Config) -> Program:
    """Compile ``config``: parse, check, materialize, fuse, lower.

    Keys that the user gave and that the program does not depend on are among the program's warnings, or problems
    where they cannot have an effect. Raises CompileError with every problem found, or TraceError where the workload's
    file is the only one.
    """
    problems = out_of_range(config)
    if problems:
        raise CompileError(problems)
    program = _compiled(config)
    if config.given is None:
        return program
    from hermes_flow.compiler.own_constants import with_own_constants
    from hermes_flow.compiler.own_engines import inherited_overheads
    from hermes_flow.compiler.unused_keys import unused_keys

    program = with_own_constants(program, config.given)
    warnings = inherited_overheads(config) + unused_keys(config.given, _compiled, problems)
    if problems:
        raise CompileError(problems)
    return replace(program, warnings=(*program.warnings, *warnings)) if warnings else program


@dataclass(frozen=True, slots=True)
class _Parsed:
    """What a config asks for, before its stages are placed on clients: every request and task, checked.

    ``config`` has all pools and clients that may run. ``within`` are the stages that encode images within a prefill.
    ``models`` has the requests of each model, by stage. ``left_out`` are warnings of pools that nothing needs.
    """

    config: Config
    graph: Graph
    within: frozenset[str]
    fleets: FleetSettings
    checked: Checked
    costs: dict[str, CostModel]
    slo: SLOBounds
    requests: Requests
    admission: AdmissionPolicy | None
    models: dict[str, Mask]
    tasks: dict[str, StageTasks]
    left_out: list[str]


def _compiled(config: Config) -> Program:
    problems: list[str] = []
    parsed = _parsed(config, problems)
    if problems:
        raise CompileError(problems)
    program = _lowered(parsed, problems)
    output = parsed.config.output
    if output.stream_requests is None:
        return program
    from hermes_flow.compiler.check_windows import in_windows

    return in_windows(program, output)


def _parsed(config: Config, problems: list[str]) -> _Parsed:
    """Parse, check and materialize a config; its mistakes go to ``problems``."""
    graph = parse_parts(config.pipeline, problems)
    cluster, left_out = without_unneeded(graph, config.cluster)
    cluster = with_copies(with_sites(with_prices(cluster, config.prices), problems), problems)
    config, fleets = with_most_clients(replace(config, cluster=cluster), problems)
    config = with_encoders(with_rate_per_client(config), graph)
    checked = check(graph, config.cluster, problems)
    graph, within = with_images(graph, checked.placement, config, problems)
    config = replace(config, cluster=side_by_side(config.cluster, checked.routers))
    costs = parse_costs(config, problems)
    check_classes(config.workload.classes, config.pipeline, problems)
    slo = slo_bounds(config.slo, graph, problems, config.workload.classes)
    requests = with_adapters(_requests(config, problems), config.cluster)
    admission = _admission(config.cluster, requests, problems)
    if requests.timeout_ns is not None:
        _check_taking_back(config.cluster, problems)
    check_prefixes(requests, config.cluster, problems)
    check_policies(fleets, config.cluster, slo, requests, problems)
    named = "workload.path" if isinstance(config.workload, TraceWorkload) else "workload.models"
    models = model_masks(requests, graph, checked.placement, named, problems)
    tasks = materialize(graph, requests, config.seed, problems)
    return _Parsed(
        config, graph, within, fleets, checked, costs, slo, requests, admission, models, tasks, left_out
    )


def _lowered(parsed: _Parsed, problems: list[str]) -> Program:
    """Fuse the stages into ops and lower them, their pools and the network; raises CompileError with ``problems``."""
    config, graph, requests, fleets = parsed.config, parsed.graph, parsed.requests, parsed.fleets
    placement, routers, cluster = parsed.checked.placement, parsed.checked.routers, config.cluster
    emit_first = cluster.first_token == "decode"
    placed = fuse(placement, parsed.tasks, list(cluster.pools), parsed.models, emit_first, parsed.within)
    edges = kv_edges(placed, cluster)
    handovers = kv_handovers(placed, edges, cluster, routers, problems)
    groups = kv_groups(placed, edges, cluster, problems)
    known = (cluster, parsed.costs, graph, requests, config.seed, parsed.checked.reckoned, handovers)
    lowering = Lowering(*known, config.network, problems, [])
    asked = lower_work(placed, lowering)
    pools = lower_pools(lowering, placed, asked, parsed.checked, groups)
    pools = with_fleets(pools, fleets, cluster, parsed.checked, problems)
    if problems:
        raise CompileError(problems)
    data = data_edges(placed, asked.contexts, cluster, routers, config.network)
    ops = with_shared_prompts(link(placed, asked, edges, data), pools)
    pools, hosts = place_pools(pools, cluster)
    carrying = frozenset(name for name, own in fleets.failures.items() if moves_kv(own))
    network = lower_network(config.network, cluster, pools, ops, carrying, problems, lowering.warnings)
    network = with_link_failures(network, config.network.failures, pools, problems)
    if problems:
        raise CompileError(problems)
    pools = with_failures(pools, fleets.failures, cluster, ops, network, problems)
    load_routes = _load_routes(graph, placement, config)
    pools = with_site_fleets(pools, fleets, cluster, ops, load_routes, problems)
    check_load_routes(load_routes, pools, problems)
    retries = retry_rule(config, requests, ops, problems)
    if problems:
        raise CompileError(problems)
    sites = lower_sites(cluster, pools, ops, requests, config.seed, problems)
    if problems:
        raise CompileError(problems)
    unheeded = [
        *unheeded_names(requests, parsed.within, graph),
        *_unheeded(requests, graph, placement, config),
    ]
    warnings = [*parsed.left_out, *unheeded, *lowering.warnings]
    rejected = _rejected(ops, pools, cluster, requests, warnings)
    return Program(
        name=config.workload.name,
        pipeline=config.pipeline.name,
        cluster=cluster.name,
        pools=pools,
        ops=ops,
        requests=requests,
        slo=parsed.slo,
        seed=config.seed,
        network=network,
        hosts=hosts,
        load_routes=load_routes,
        warnings=tuple(warnings),
        rejected=rejected,
        admission=parsed.admission,
        retries=retries,
        sites=sites,
        record_steps=config.output.steps,
        phases=phases_of(config),
        leaves_out=getattr(config.workload, "leaves_out", ()),
    )


def _unheeded(requests: Requests, graph: Graph, placement: Placement, config: Config) -> list[str]:
    """Return warnings of what requests carry and nothing reads, and what the workload says of itself."""
    return [
        *requests.notes,
        *_unheeded_priorities(config),
        *unheeded_images(requests, graph, config),
        *unheeded_adapters(requests, config.cluster),
        *unheeded_sites(requests, config.cluster),
        *unheeded_models(requests, placement),
    ]


def _requests(config: Config, problems: list[str]) -> Requests:
    """Return the requests of the workload, each with its pipeline.

    Raises CompileError where the earlier ``problems`` leave no requests to go on with.
    """
    try:
        workload = config.workload
        requests = first_made("requests", workload, lambda: build_requests(workload, workload.seed))
    except HermesFlowError as error:
        if not problems:
            raise
        raise CompileError([*problems, str(error)]) from None
    if problems and any(own.pipeline for own in config.workload.classes.values()):
        raise CompileError(problems)
    return with_pipelines(requests, config.pipeline, config.seed, problems)


def _unheeded_priorities(config: Config) -> list[str]:
    """Return a warning where traffic classes have priorities and nothing goes by them."""
    if all(own.priority is None for own in config.workload.classes.values()):
        return []
    heeding = [
        getattr(pool, key, None)
        for pool in config.cluster.pools.values()
        for key in ("packing", "scheduling_policy")
    ]
    text = str((heeding, config.cluster.admission, config.pipeline))
    if "priority" in text or "earliest_deadline" in text:
        return []
    return [
        "workload.classes: nothing goes by priorities; set packing=priority or scheduling_policy=priority of a pool, "
        "or order=priority of cluster.admission"
    ]


def _check_taking_back(cluster: Cluster, problems: list[str]) -> None:
    """Append a problem for every pool whose clients cannot give up a task in the middle."""
    problems.extend(
        f"workload.timeout_s: clients of kind {pool.kind!r} (cluster.pools.{name}) take no task back; leave it out"
        for name, pool in cluster.pools.items()
        if not kind_of(pool).takes_back
    )


def _admission(cluster: Cluster, requests: Requests, problems: list[str]) -> AdmissionPolicy | None:
    """Return the policy of the gateway, None where there is none; mistakes go to ``problems``."""
    if cluster.admission is None:
        return None
    from hermes_flow.admission import admission_policies

    key = "cluster.admission"
    try:
        policy = admission_policies.parse(cluster.admission, key)
    except ConfigError as error:
        problems.append(str(error))
        return None
    try:
        policy.start(requests)
    except ConfigError as error:
        problems.append(f"{key}.{error}")
    return policy


# What sets the limit that a request is above, by a part of the reason why it is rejected.
_LIMITS = {
    "the KV cache": ", or more cluster.pools.NAME.kv_blocks (null has those that fit)",
    "the context": ", or a larger model.max_context",
    "than a step": ", or more cluster.pools.NAME.max_num_batched_tokens",
}


def _rejected(
    ops: Sequence[Op], pools: Sequence[Pool], cluster: Cluster, requests: Requests, warnings: list[str]
) -> dict[int, str]:
    """Return the requests that can never be served, each with the reason; raises CompileError if none can."""
    rejected = unservable(ops, pools, cluster)
    rejected |= later_turns(requests, rejected)
    if rejected and len(rejected) == len(requests):
        request, reason = next(iter(rejected.items()))
        limit = next((text for part, text in _LIMITS.items() if part in reason), "")
        limit = limit.replace("NAME", rejecting_pool(ops, pools, cluster, request, reason) or "NAME")
        raise CompileError(
            [f"workload: every request is {reason}; nothing can be served; expected shorter requests{limit}"]
        )
    if rejected:
        reasons = sorted(set(rejected.values()))
        warnings.append(f"{len(rejected):,} of {len(requests):,} requests are rejected: {'; '.join(reasons)}")
    return rejected


def _load_routes(graph: Graph, placement: Placement, config: Config) -> tuple[LoadRoute, ...]:
    if not graph.load_routes:
        return ()
    from hermes_flow.compiler.load_routes import load_routes

    return load_routes(graph, placement, list(config.cluster.pools))
