"""Pass 3: draw the workload and decide, request by request, which stages it takes and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.expand import Instance, ancestors, expand
from hermes_flow.compiler.expression import evaluate
from hermes_flow.compiler.options import ELSE
from hermes_flow.compiler.parse import Graph
from hermes_flow.compiler.program import Ints, Requests
from hermes_flow.compiler.stages import RequestSizes
from hermes_flow.errors import ConfigError
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.streams import stream

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class StageTasks:
    """One instance's tasks: which requests take it (None: all), its tokens, its core time if it has one.

    Tokens are those of the prompt for a prefill, of the answer for a decode. ``adds`` are tokens that what it found
    adds to the prompts after it.
    """

    instance: Instance
    taken: Mask | None
    tokens: Ints
    service_ns: Ints | None = None
    adds: Ints | None = None


def materialize(graph: Graph, requests: Requests, seed: int, problems: list[str]) -> dict[str, StageTasks]:
    """Return the tasks of every instance of a stage, in topological order; mistakes go to ``problems``."""
    try:
        drawing = _Drawing(graph, requests, seed)
    except ConfigError as error:
        problems.append(str(error))
        return {}
    instances = expand(graph, drawing.most_iterations())
    before = ancestors(instances)
    tasks: dict[str, StageTasks] = {}
    for instance in instances:
        stage = instance.stage
        try:
            tasks[instance.name] = drawing.tasks(instance, tasks, before)
        except ConfigError as error:
            key = (
                error.key if error.key.startswith(("pipeline.", "workload.")) else f"{stage.key}.{error.key}"
            )
            if f"{key}: {error.problem}" not in problems:
                problems.append(f"{key}: {error.problem}")
        if stage.options.vote is not None and instance.branch == stage.options.branches - 1:
            _cut_by_vote(instance, tasks)
    return tasks


class _Drawing:
    """What is drawn once for all stages: iterations of loops, outcomes of routes."""

    def __init__(self, graph: Graph, requests: Requests, seed: int) -> None:
        self.graph = graph
        self.requests = requests
        self.seed = seed
        self.attributes = {"input_tokens": requests.input_tokens, "output_tokens": requests.output_tokens}
        if requests.priority is not None:
            self.attributes["priority"] = requests.priority
        count = len(requests)
        self.times = {
            name: tokens(
                parse_lengths(loop["times"], key := f"pipeline.loops.{name}.times"),
                count,
                stream(seed, f"loop:{name}"),
                key,
            )
            for name, loop in graph.loops.items()
        }
        self.outcomes = {
            name: self._outcomes(name, list(outcomes.values())) for name, outcomes in graph.routes.items()
        }

    def most_iterations(self) -> dict[str, int]:
        """Return how often each loop runs at most."""
        return {name: int(times.max(initial=1)) for name, times in self.times.items()}

    def tasks(
        self, instance: Instance, tasks: Mapping[str, StageTasks], before: Mapping[str, frozenset[str]]
    ) -> StageTasks:
        """Return the tasks of an instance, given those of all before it."""
        params = instance.stage.params
        taken = self._taken(instance)
        sizes = RequestSizes(
            self.requests.input_tokens,
            self.requests.output_tokens,
            self._answer_tokens(before[instance.name], tasks),
            stream(self.seed, f"stage:{instance.name}"),
        )
        if instance.stage.kind == "prefill":
            return StageTasks(instance, taken, self._prompt(instance, sizes, tasks, before))
        service, adds = getattr(params, "service_ns", None), getattr(params, "adds", None)
        return StageTasks(
            instance,
            taken,
            params.tokens(sizes),
            None if service is None else service(sizes),
            None if adds is None else adds(sizes),
        )

    def _prompt(
        self,
        instance: Instance,
        sizes: RequestSizes,
        tasks: Mapping[str, StageTasks],
        before: Mapping[str, frozenset[str]],
    ) -> Ints:
        """Return the prompt: the request's own and all that was added, or a conversation that goes on."""
        if instance.twin is not None:
            return tasks[instance.twin].tokens
        prompt = instance.stage.params.tokens(sizes) + self._added(before[instance.name], tasks)
        if instance.continues is None:
            return prompt
        decode = tasks[instance.continues]
        known = before[instance.continues] | {instance.continues}
        grown = tasks[decode.instance.after[0]].tokens + decode.tokens
        grown = grown + self._added(before[instance.name] - known, tasks)
        result: Ints = grown if decode.taken is None else np.where(decode.taken, grown, prompt)
        return result

    def _added(self, names: frozenset[str], tasks: Mapping[str, StageTasks]) -> Ints:
        total = np.zeros(len(self.requests), dtype=np.int64)
        for name in sorted(names):
            own = tasks.get(name)
            if own is not None and own.adds is not None:
                total += own.adds if own.taken is None else np.where(own.taken, own.adds, 0)
        return total

    def _answer_tokens(self, names: frozenset[str], tasks: Mapping[str, StageTasks]) -> Ints:
        """Return the tokens of the answer so far: of the last decode before that a request takes, or to be given."""
        answer = self.requests.output_tokens
        for name, own in tasks.items():
            if name in names and own.instance.stage.kind == "decode" and own.instance.branch == 0:
                answer = own.tokens if own.taken is None else np.where(own.taken, own.tokens, answer)
        return answer

    def _taken(self, instance: Instance) -> Mask | None:
        options, key = instance.stage.options, instance.stage.key
        masks: list[Mask] = []
        if options.share < 1.0:
            name = instance.name if instance.branch == 0 else str(instance.twin)
            masks.append(stream(self.seed, f"share:{name}").random(len(self.requests)) < options.share)
        if options.when is not None:
            masks.append(evaluate(options.when, self.attributes, f"{key}.when"))
        for route, outcome in options.route.items():
            if outcome in self.graph.routes.get(route, ()):
                masks.append(self.outcomes[route] == list(self.graph.routes[route]).index(outcome))
        if options.repeat is not None and instance.iteration:
            masks.append(self.times[options.repeat] > instance.iteration)
        if not masks:
            return None
        taken: Mask = np.logical_and.reduce(masks)
        return taken

    def _outcomes(self, name: str, outcomes: list[float | str]) -> Ints:
        """Return which outcome of a route each request has: by the shares, or the first condition that holds."""
        count = len(self.requests)
        if all(isinstance(outcome, int | float) for outcome in outcomes):
            upto = np.cumsum(np.array(outcomes, dtype=np.float64))
            drawn = stream(self.seed, f"route:{name}").random(count) * upto[-1]
            places: Ints = np.minimum(np.searchsorted(upto, drawn, side="right"), len(outcomes) - 1)
            return places
        chosen: Ints = np.full(count, len(outcomes) - 1, dtype=np.int64)
        for place in reversed(range(len(outcomes))):
            condition = str(outcomes[place])
            if condition != ELSE:
                holds = evaluate(condition, self.attributes, f"pipeline.routes.{name}")
                chosen = np.where(holds, place, chosen)
        return chosen


def _cut_by_vote(last: Instance, tasks: dict[str, StageTasks]) -> None:
    """Where some branches decide, the others end with the last of those: side by side, they are as far then."""
    names = [
        name
        for name, own in tasks.items()
        if own.instance.stage is last.stage and own.instance.iteration == last.iteration
    ]
    vote = last.stage.options.vote
    assert vote is not None
    lengths = np.sort(np.stack([tasks[name].tokens for name in names]), axis=0)
    for name in names:
        tasks[name] = replace(tasks[name], tokens=np.minimum(tasks[name].tokens, lengths[vote - 1]))
