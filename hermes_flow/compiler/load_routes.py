"""Compiles routes that choose between pools at run time, by their load.

Itineraries are made for every outcome; at run time a request takes that of one. So nothing that comes after may
depend on which one it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hermes_flow.compiler.placement import Placement
from hermes_flow.errors import ConfigError
from hermes_flow.program.ops import LoadRoute
from hermes_flow.stages.decode import Decode
from hermes_flow.stages.graph import Graph, RouteByLoad, Stage

BY, MEASURE, ELSE = "by", "measure", "else"
_MEASURES = ("requests", "tokens")


def parse_load_route(entries: Mapping[str, Any], key: str) -> RouteByLoad:
    """Return the route of these entries; ``key`` is its full key. Raises ConfigError."""
    if entries[BY] != "load":
        raise ConfigError(
            f"{key}.{BY}", f"{entries[BY]!r} is not valid; expected 'load', or shares or conditions"
        )
    measure = entries.get(MEASURE, _MEASURES[0])
    if measure not in _MEASURES:
        raise ConfigError(
            f"{key}.{MEASURE}", f"{measure!r} is not valid; expected one of: {', '.join(_MEASURES)}"
        )
    outcomes = {name: value for name, value in entries.items() if name not in (BY, MEASURE)}
    limits = dict(list(outcomes.items())[:-1])
    if not limits or list(outcomes.values())[-1] != ELSE:
        raise ConfigError(key, f"expected outcomes with limits, and a last one that is {ELSE!r}")
    for name, limit in limits.items():
        number = isinstance(limit, int | float) and not isinstance(limit, bool)
        if not number or not 0 <= limit < math.inf:
            raise ConfigError(
                f"{key}.{name}", f"{limit!r} is not valid; expected how many {measure} a client may have"
            )
    return RouteByLoad(
        str(measure), {name: float(limit) for name, limit in limits.items()}, list(outcomes)[-1]
    )


def check_load_routes(graph: Graph, placement: Placement, problems: list[str]) -> None:
    """Append a problem for each outcome without a known pool, and for stages that depend on the outcome."""
    for name, route in graph.load_routes.items():
        key = graph.key("routes", name)
        for outcome in route.outcomes:
            taking = [stage for stage in graph.stages.values() if graph.decided(stage) == (name, outcome)]
            _check_pool(f"{key}.{outcome}", outcome in route.limits, taking, placement, problems)
            for stage in taking:
                _check_found(stage, graph, problems)
        decodes = [
            stage
            for stage in graph.stages.values()
            if stage.role == "answer" and (graph.decided(stage) or ("", ""))[0] == name
        ]
        _check_answers(decodes, graph, problems)
    for stage in graph.stages.values():
        by_load = [name for name in stage.options.route if name in graph.load_routes]
        if len(by_load) > 1:
            problems.append(
                f"{stage.key}.route: loads decide {' and '.join(map(repr, by_load))}; expected one of them"
            )


def load_routes(graph: Graph, placement: Placement, pools: Sequence[str]) -> tuple[LoadRoute, ...]:
    """Return the routes for the simulator; ``pools`` gives the order of pool numbers."""
    found = []
    for name, route in graph.load_routes.items():
        watched = []
        for outcome in route.limits:
            first = next(
                stage
                for stage in graph.stages.values()
                if stage.role == "prompt" and graph.decided(stage) == (name, outcome)
            )
            (pool,) = placement[first.name].values()
            watched.append(pools.index(pool))
        found.append(
            LoadRoute(
                name, route.outcomes, tuple(watched), tuple(route.limits.values()), route.measure == "tokens"
            )
        )
    return tuple(found)


def _check_pool(
    key: str, limited: bool, taking: Sequence[Stage], placement: Placement, problems: list[str]
) -> None:
    """The load of an outcome is that of the pool of its first prefill."""
    prefill = next((stage for stage in taking if stage.role == "prompt"), None)
    if prefill is None:
        if limited:
            problems.append(f"{key}: no prefill is part of it; a route by load compares pools that prefill")
        return
    pools = placement.get(prefill.name, {})
    if limited and len(pools) > 1:
        problems.append(
            f"{prefill.key}.model: {' and '.join(pools.values())} both serve it, and the load of one pool decides; "
            "expected a model or a pool"
        )


def _check_found(stage: Stage, graph: Graph, problems: list[str]) -> None:
    """What is said and found where loads decide is known there only."""
    outcome = graph.decided(stage)
    for later in graph.stages.values():
        if later.role != "prompt" or graph.decided(later) == outcome or stage not in graph.before(later.name):
            continue
        where = f"{stage.name!r}, which loads decide about"
        if stage.name in (later.options.continues, *later.options.reads):
            name = "continues" if stage.name == later.options.continues else "reads"
            problems.append(
                f"{later.key}.{name}: {where}; expected a decode that every request takes, or its own route"
            )
        elif getattr(stage.params, "adds", None) is not None:
            problems.append(
                f"{later.key}: its prompt would hold what is found by {where}; expected the same route"
            )


def _check_answers(decodes: Sequence[Stage], graph: Graph, problems: list[str]) -> None:
    """Who comes after all outcomes handles an answer of as many tokens, whichever it was."""
    after = [
        stage
        for stage in graph.stages.values()
        if graph.decided(stage) is None and any(decode in graph.before(stage.name) for decode in decodes)
    ]
    for decode in decodes if after else ():
        first, params = decodes[0], decode.params
        assert isinstance(params, Decode)
        if isinstance(params.output_tokens, Mapping) or params.spread_cv or params != first.params:
            problems.append(
                f"{decode.key}: its answers have other lengths than those of {first.name!r}, and {after[0].name!r} "
                "comes after either; expected the same output_tokens and output_scale, none of them drawn"
            )
            return
        if decode.options.pause is not None:
            problems.append(
                f"{decode.key}.pause: loads decide who takes it, and {after[0].name!r} comes after it"
            )
