"""Pass 3: draw the workload and decide, request by request, which stages it takes and how large they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.expression import evaluate
from hermes_flow.compiler.parse import Graph, Stage
from hermes_flow.compiler.program import Ints, Requests
from hermes_flow.compiler.stages import RequestSizes
from hermes_flow.errors import ConfigError
from hermes_flow.workload.streams import stream


@dataclass(frozen=True, slots=True)
class StageTasks:
    """One stage's tasks: which requests take it (None: all), its tokens, its core time if it has one."""

    taken: NDArray[np.bool_] | None
    tokens: Ints
    service_ns: Ints | None


def materialize(graph: Graph, requests: Requests, seed: int, problems: list[str]) -> dict[str, StageTasks]:
    """Return the tasks of every stage; mistakes in conditions or sizes are appended to ``problems``."""
    sizes = RequestSizes(requests.input_tokens, requests.output_tokens)
    tasks: dict[str, StageTasks] = {}
    for stage in graph.stages.values():
        try:
            service = getattr(stage.params, "service_ns", None)
            tasks[stage.name] = StageTasks(
                taken=_taken(stage, requests, seed),
                tokens=stage.params.tokens(sizes),
                service_ns=None if service is None else service(sizes),
            )
        except ConfigError as error:
            key = error.key if error.key.startswith(stage.key) else f"{stage.key}.{error.key}"
            problems.append(f"{key}: {error.problem}")
    return tasks


def _taken(stage: Stage, requests: Requests, seed: int) -> NDArray[np.bool_] | None:
    taken: NDArray[np.bool_] | None = None
    options = stage.options
    if options.share < 1.0:
        taken = stream(seed, f"share:{stage.name}").random(len(requests)) < options.share
    if options.when is not None:
        attributes = {"input_tokens": requests.input_tokens, "output_tokens": requests.output_tokens}
        if requests.priority is not None:
            attributes["priority"] = requests.priority
        holds = evaluate(options.when, attributes, f"{stage.key}.when")
        taken = holds if taken is None else taken & holds
    return taken
