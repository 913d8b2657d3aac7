"""Checks that loops, routes and branches of stages fit the pipeline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hermes_flow.config.schema import Pipeline
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.stages.graph import Stage
from hermes_flow.workload.lengths import parse_lengths

ELSE = "else"


def check_options(stages: Mapping[str, Stage], pipeline: Pipeline, problems: list[str]) -> None:
    """Append a problem for every loop, route, branch or continuation that does not fit."""
    for stage in stages.values():
        _check_name(stage, problems)
        _check_loop(stage, stages, pipeline, problems)
        _check_route(stage, pipeline, problems)
        _check_branches(stage, problems)
        _check_continues(stage, stages, problems)
        _check_reads(stage, stages, problems)
    _check_between(stages, pipeline, problems)
    _check_cuts(stages, problems)
    for name, loop in pipeline.loops.items():
        _check_times(name, loop, problems)
        if not any(stage.options.repeat == name for stage in stages.values()):
            problems.append(f"pipeline.loops.{name}: no stage is part of it; name it with 'repeat: {name}'")
    for name, outcomes in pipeline.routes.items():
        _check_outcomes(f"pipeline.routes.{name}", outcomes, problems)


def _check_cuts(stages: Mapping[str, Stage], problems: list[str]) -> None:
    """Answers that pause, and guards that read one as it is written: few pipelines have any."""
    if any(stage.options.pause is not None or stage.options.during is not None for stage in stages.values()):
        from hermes_flow.compiler.pauses import check_pauses

        check_pauses(stages, problems)
    if any(stage.role == "guard" for stage in stages.values()):
        from hermes_flow.compiler.streaming import check_streaming

        check_streaming(stages, problems)


def _check_name(stage: Stage, problems: list[str]) -> None:
    taken = [sign for sign in "./@+" if sign in stage.name]
    if taken:
        problems.append(
            f"{stage.key}: the name has {' and '.join(map(repr, taken))}, which separates turns, branches and "
            "models of a stage"
        )


def _check_loop(stage: Stage, stages: Mapping[str, Stage], pipeline: Pipeline, problems: list[str]) -> None:
    loop = stage.options.repeat
    if loop is not None and loop not in pipeline.loops:
        problems.append(f"{stage.key}.repeat: no loop is called {loop!r}{did_you_mean(loop, pipeline.loops)}")
    for name in stage.options.after:
        before = stages.get(name)
        if stage.role == "answer" and before is not None and before.options.repeat != loop:
            problems.append(f"{stage.key}.repeat: expected the same loop as its prefill {name!r}")


def _check_between(stages: Mapping[str, Stage], pipeline: Pipeline, problems: list[str]) -> None:
    """A stage that comes after one stage of a loop and before another belongs to it."""
    for loop in pipeline.loops:
        inside = {name for name, stage in stages.items() if stage.options.repeat == loop}
        before = {name: _before(stage, stages) for name, stage in stages.items()}
        for name, stage in stages.items():
            if name in inside or not before[name] & inside:
                continue
            later = [other for other in inside if name in before[other]]
            if later and name not in before[name]:  # else: a cycle, which is reported
                problems.append(
                    f"{stage.key}.repeat: it comes between stages of the loop {loop!r} and is not part of it; "
                    f"expected {loop!r}"
                )


def _check_times(name: str, loop: Any, problems: list[str]) -> None:
    key = f"pipeline.loops.{name}"
    if not isinstance(loop, Mapping) or set(loop) != {"times"}:
        problems.append(f"{key}: {loop!r} is not a mapping with the key 'times' alone, as in {{times: 3}}")
        return
    try:
        parse_lengths(loop["times"], f"{key}.times")
    except ConfigError as error:
        problems.append(str(error))


def _check_route(stage: Stage, pipeline: Pipeline, problems: list[str]) -> None:
    for name, outcome in stage.options.route.items():
        if name not in pipeline.routes:
            problems.append(
                f"{stage.key}.route: no route is called {name!r}{did_you_mean(name, pipeline.routes)}"
            )
        elif outcome not in (outcomes := _outcomes(pipeline.routes[name])):
            near = did_you_mean(outcome, outcomes)
            problems.append(f"{stage.key}.route.{name}: it has no outcome {outcome!r}{near}")


def is_by_load(entries: Mapping[str, Any]) -> bool:
    """Return whether a route chooses by load; see load_routes.py."""
    return "by" in entries


def _outcomes(entries: Mapping[str, Any]) -> list[str]:
    return [name for name in entries if not is_by_load(entries) or name not in ("by", "measure")]


def _check_outcomes(key: str, outcomes: Mapping[str, Any], problems: list[str]) -> None:
    if is_by_load(outcomes):
        from hermes_flow.compiler.load_routes import parse_load_route

        try:
            parse_load_route(outcomes, key)
        except ConfigError as error:
            problems.append(str(error))
        return
    if not outcomes:
        problems.append(f"{key}: empty; expected outcomes with shares or conditions")
        return
    numbers = [value for value in outcomes.values() if isinstance(value, int | float)]
    if any(
        isinstance(value, bool) or not isinstance(value, int | float | str) for value in outcomes.values()
    ):
        problems.append(f"{key}: {dict(outcomes)!r}; expected a share or a condition for each outcome")
    elif numbers and len(numbers) < len(outcomes):
        problems.append(f"{key}: has shares and conditions; expected one or the other")
    elif numbers and not (min(numbers) >= 0 and abs(math.fsum(numbers) - 1.0) <= 1e-9):
        problems.append(
            f"{key}: the shares {', '.join(f'{share:g}' for share in numbers)} do not add up to 1"
        )
    elif not numbers and ELSE in list(outcomes.values())[:-1]:
        problems.append(f"{key}: {ELSE!r} comes last")
    elif not numbers and ELSE not in outcomes.values():
        problems.append(f"{key}: no outcome is {ELSE!r}; expected the last one to be")


def _check_branches(stage: Stage, problems: list[str]) -> None:
    options = stage.options
    if options.branches > 1 and stage.role != "answer":
        problems.append(f"{stage.key}.branches: a {stage.kind} has no branches; only a decode has them")
    if options.vote is not None and stage.role != "answer":
        problems.append(f"{stage.key}.vote: a {stage.kind} has no branches; it is a key of the decode")
    elif options.vote is not None and options.vote > options.branches:
        problems.append(
            f"{stage.key}.vote: {options.vote} is above the number of branches, {options.branches}"
        )


def _check_continues(stage: Stage, stages: Mapping[str, Stage], problems: list[str]) -> None:
    named = stage.options.continues
    if named is None:
        return
    if stage.role != "prompt":
        problems.append(f"{stage.key}.continues: a {stage.kind} has no prompt; it is a key of a prefill")
    elif named not in stages or stages[named].role != "answer":
        decodes = [name for name, other in stages.items() if other.role == "answer"]
        problems.append(f"{stage.key}.continues: no decode is called {named!r}{did_you_mean(named, decodes)}")
    elif named not in _before(stage, stages):
        problems.append(f"{stage.key}.continues: {named!r} does not come before it")


def _check_reads(stage: Stage, stages: Mapping[str, Stage], problems: list[str]) -> None:
    key = f"{stage.key}.reads"
    if stage.options.reads and stage.role != "prompt":
        problems.append(f"{key}: a {stage.kind} has no prompt; it is a key of a prefill")
        return
    for name in stage.options.reads:
        if name not in stages or stages[name].role != "answer":
            decodes = [name for name, other in stages.items() if other.role == "answer"]
            problems.append(f"{key}: no decode is called {name!r}{did_you_mean(name, decodes)}")
        elif name not in _before(stage, stages):
            problems.append(f"{key}: {name!r} does not come before it")
        elif name == stage.options.continues and stages[name].options.branches == 1:
            problems.append(f"{key}: its prompt begins with the answer of {name!r} already")
        elif stages[name].options.repeat not in (None, stage.options.repeat):
            problems.append(
                f"{key}: {name!r} is repeated and writes several answers; expected a decode after the loop"
            )


def _before(stage: Stage, stages: Mapping[str, Stage]) -> set[str]:
    found: set[str] = set()
    left = list(stage.options.after)
    while left:
        name = left.pop()
        if name not in found and name in stages:
            found.add(name)
            left += stages[name].options.after
    return found
