"""Phase 3: draws the workload, and decides which stages each request takes and how large they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.compiler.check_graph import ELSE
from hermes_flow.compiler.expand import Instance, ancestors, expand, instance_name
from hermes_flow.compiler.expression import evaluate
from hermes_flow.compiler.iterations import MOST_ITERATIONS
from hermes_flow.compiler.stage_tasks import Mask, StageTasks, added_tokens, outputs, prefill_of
from hermes_flow.errors import ConfigError
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.stages import RequestSizes
from hermes_flow.stages.graph import Graph
from hermes_flow.stages.prefill import Prefill
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.sessions import said_tokens
from hermes_flow.workload.shares import drawn_by_share
from hermes_flow.workload.streams import stream

if TYPE_CHECKING:
    from hermes_flow.compiler.divided_answers import AnswerCuts
    from hermes_flow.compiler.given_sizes import GivenSizes


def materialize(graph: Graph, requests: Requests, seed: int, problems: list[str]) -> dict[str, StageTasks]:
    """Return the tasks of every instance of a stage, in topological order; mistakes go to ``problems``."""
    try:
        drawing = _Drawing(graph, requests, seed)
        segments = {} if drawing.cuts is None else drawing.cuts.most(MOST_ITERATIONS)
        instances = expand(graph, drawing.most_iterations(), segments)
    except ConfigError as error:
        if str(error) not in problems:
            problems.append(str(error))
        return {}
    before = ancestors(instances)
    tasks: dict[str, StageTasks] = {}
    for instance in instances:
        stage = instance.stage
        if _goes_on_from_a_mistake(instance, tasks):
            continue
        try:
            own = drawing.tasks(instance, tasks, before)
            decided = graph.decided(stage)
            if decided is not None:
                own = replace(own, decided=_numbered(graph, *decided))
            tasks[instance.name] = own
        except ConfigError as error:
            key = (
                error.key if error.key.startswith(("pipeline.", "workload.")) else f"{stage.key}.{error.key}"
            )
            if f"{key}: {error.problem}" not in problems:
                problems.append(f"{key}: {error.problem}")
        if stage.options.vote is not None and instance.branch == stage.options.branches - 1:
            _cut_by_vote(instance, tasks)
    return tasks


def _numbered(graph: Graph, name: str, outcome: str) -> tuple[int, int] | None:
    """Return a route by load and its outcome as numbers; None for an unknown outcome, which the check names."""
    outcomes = graph.load_routes[name].outcomes
    return (list(graph.load_routes).index(name), outcomes.index(outcome)) if outcome in outcomes else None


def _goes_on_from_a_mistake(instance: Instance, tasks: Mapping[str, StageTasks]) -> bool:
    """Whether the tokens of an instance depend on those of one that has none."""
    twin = () if instance.twin is None else (instance.twin,)
    if any(name not in tasks for name in (*twin, *instance.continues, *instance.reads)):
        return True
    return any(prefill_of(tasks[name], tasks) is None for name in instance.continues)


class _Drawing:
    """What is drawn once for all stages: iterations of loops, outcomes of routes."""

    def __init__(self, graph: Graph, requests: Requests, seed: int) -> None:
        self.graph = graph
        self.requests = requests
        self.seed = seed
        self.given = self._given_sizes()
        self.said_tokens = said_tokens(requests)
        self.attributes = {"input_tokens": requests.input_tokens, "output_tokens": requests.output_tokens}
        if requests.priority is not None:
            self.attributes["priority"] = requests.priority
        count = len(requests)
        self.times = {
            name: tokens(
                parse_lengths(loop["times"], key := f"{graph.key('loops', name)}.times"),
                count,
                self._stream("loop", name),
                key,
            )
            for name, loop in graph.loops.items()
        }
        if self.given is not None:
            self.times = {name: self.given.times(name, drawn) for name, drawn in self.times.items()}
        self.outcomes = {
            name: self._outcomes(name, outcomes, list(outcomes.values()))
            for name, outcomes in graph.routes.items()
        }
        self.cuts = self._answer_cuts()

    def _given_sizes(self) -> GivenSizes | None:
        """Return the sizes of single stages that a trace lists; None where it lists none."""
        if self.requests.stages is None:
            return None
        from hermes_flow.compiler.given_sizes import GivenSizes

        return GivenSizes(self.graph, self.requests, self.requests.stages)

    def _answer_cuts(self) -> AnswerCuts | None:
        """Return what is drawn of answers that pause or are stopped; None where there are none."""
        stages = self.graph.stages.values()
        if all(self.graph.pausing(stage) is None and self.graph.watched(stage) is None for stage in stages):
            return None
        from hermes_flow.compiler.divided_answers import AnswerCuts

        return AnswerCuts(
            self.graph,
            self.requests,
            self._stream,
            lambda guard: self._taken(Instance(guard.name, guard, ()), {}),
        )

    def _stream(self, purpose: str, name: str) -> np.random.Generator:
        """Return the generator of a stage, loop or route; a part draws what it would draw by itself."""
        return stream(self.seed, f"{purpose}:{self.graph.own_name(name)}")

    def most_iterations(self) -> dict[str, int]:
        """Return how often each loop runs at most; raises ConfigError where that is out of reason."""
        most = {name: int(times.max(initial=1)) for name, times in self.times.items()}
        for name, times in most.items():
            if times > MOST_ITERATIONS:
                raise ConfigError(
                    f"{self.graph.key('loops', name)}.times",
                    f"gives {times:,} iterations; expected at most {MOST_ITERATIONS} (a distribution takes 'max')",
                )
        return most

    def tasks(
        self, instance: Instance, tasks: Mapping[str, StageTasks], before: Mapping[str, frozenset[str]]
    ) -> StageTasks:
        """Return the tasks of an instance, given those of all before it."""
        params = instance.stage.params
        taken = self._taken(instance, tasks)
        given = None if self.given is None else self.given.of(instance)
        if self.given is not None and given is not None:
            self.given.check_taken(instance, given, taken)
        said, answer = self._answered(instance, before[instance.name], tasks)
        sizes = RequestSizes(
            self.requests.input_tokens,
            self.requests.output_tokens,
            answer,
            self._stream("stage", instance.name),
            said,
            self.requests.session,
            self.said_tokens,
            self.requests.images,
        )
        if given is not None and instance.stage.role == "images":
            raise ConfigError(
                instance.stage.key,
                "the trace lists sizes of it, and its work follows from images; leave that out",
            )
        takes = getattr(params, "takes", None)
        if takes is not None:
            has = takes(sizes)
            taken = has if taken is None else taken & has
        if instance.stage.role == "prompt":
            # Those whose answers it reads keep to themselves what they have found.
            found = before[instance.name].difference(*(before[name] for name in instance.reads))
            prompt = self._prompt(instance, sizes, taken, tasks, before, found)
            if self.given is not None and given is not None:
                from hermes_flow.compiler.given_tasks import given_prompt

                prompt = given_prompt(self.given, given, prompt, instance, tasks, found, self.requests)
            return StageTasks(instance, taken, prompt, given=given)
        cut = None if self.cuts is None else self._cut(self.cuts, instance, taken, tasks)
        if cut is not None:
            return cut
        service, adds = getattr(params, "service_ns", None), getattr(params, "adds", None)
        own = StageTasks(
            instance,
            taken,
            params.tokens(sizes),
            None if service is None else service(sizes),
            None if adds is None else adds(sizes),
            given=given,
        )
        if given is None and instance.stage.options.measured is None:
            return own
        return self._known(own, tasks)

    def _known(self, own: StageTasks, tasks: Mapping[str, StageTasks]) -> StageTasks:
        """Return tasks with the sizes and times that the trace lists, and with measured times."""
        from hermes_flow.compiler.given_tasks import with_given, with_measured_time

        if self.given is not None:
            own = with_given(own, self.given, self.graph, self.requests, tasks)
        return with_measured_time(own)

    def _cut(
        self, cuts: AnswerCuts, instance: Instance, taken: Mask | None, tasks: Mapping[str, StageTasks]
    ) -> StageTasks | None:
        """Return the tasks of a decode whose answers are cut, or of a guard that reads such; None for others."""
        segment = cuts.segment(instance.stage.name, instance.iteration)
        if segment is not None:
            return StageTasks(instance, taken, segment[0], written=segment[1])
        check = cuts.check(instance.stage, instance.iteration)
        if check is None:
            return None
        has, read, at_token = check
        for mask in (taken, tasks[instance.after[0]].taken):
            has = has if mask is None else has & mask
        return StageTasks(instance, has, read, at_token=at_token)

    def _prompt(
        self,
        instance: Instance,
        sizes: RequestSizes,
        taken: Mask | None,
        tasks: Mapping[str, StageTasks],
        before: Mapping[str, frozenset[str]],
        found: frozenset[str],
    ) -> Ints:
        """Return the prompt: the request's own and all that was added, or a conversation that goes on."""
        if instance.twin is not None:
            return tasks[instance.twin].tokens
        params = instance.stage.params
        assert isinstance(params, Prefill)
        read = np.zeros(len(self.requests), dtype=np.int64)
        for name in instance.reads:
            own = tasks[name]
            read += own.tokens if own.taken is None else np.where(own.taken, own.tokens, 0)
        prompt = params.tokens(sizes) + added_tokens(found, tasks, len(read)) + read
        if not instance.continues:
            return prompt
        if not self._after_pause(instance):
            read += params.new_tokens(sizes)
        begins = np.ones(len(self.requests), dtype=np.bool_) if taken is None else taken
        for name in instance.continues:
            prefill = prefill_of(tasks[name], tasks)
            assert prefill is not None
            goes_on = begins if prefill.taken is None else begins & prefill.taken
            if goes_on.any():
                new = added_tokens(found - before[name] - {name}, tasks, len(read)) + read
                answer = outputs(tasks[name].tokens, tasks[name].taken)
                prompt = np.where(goes_on, prefill.tokens + answer + new, prompt)
                begins = begins & ~goes_on
            if not begins.any():
                break
        return prompt

    def _answered(
        self, instance: Instance, names: frozenset[str], tasks: Mapping[str, StageTasks]
    ) -> tuple[Ints, Ints]:
        """Return the tokens of the prompt and of the answer so far.

        Those of the last decode before that a request takes (of the stage's own branch), or the request's.
        """
        prompt, answer = self.requests.input_tokens, self.requests.output_tokens
        decode = self.graph.decode_of(instance.stage)
        for name, own in tasks.items():
            if name not in names or own.instance.stage.role != "answer":
                continue
            prefill = prefill_of(own, tasks)
            # Of a decode's branches, an instance sees its own, and of another decode's the first.
            branch = instance.branch if own.instance.stage is decode else 0
            if prefill is None or own.instance.branch != branch:
                continue
            written = 0 if own.written is None else own.written
            if own.taken is None:
                prompt, answer = prefill.tokens - written, own.tokens + written
            else:
                prompt = np.where(own.taken, prefill.tokens - written, prompt)
                answer = np.where(own.taken, own.tokens + written, answer)
        return prompt, answer

    def _taken(self, instance: Instance, tasks: Mapping[str, StageTasks]) -> Mask | None:
        options, key = instance.stage.options, instance.stage.key
        masks: list[Mask] = []
        if self._after_pause(instance):
            goes_on = self._goes_on(instance, tasks)
            if options.during is None:
                return goes_on
            masks.append(goes_on)
        if self.graph.parts and self.requests.pipeline is not None:
            part = self.graph.part_of(instance.stage.name)
            masks.append(self.requests.pipeline == self.graph.parts.index(part))
        if instance.stage.role == "answer":  # who skips the prefill has nothing to decode
            prefill = tasks.get(instance.after[0]) if instance.after else None
            if prefill is not None and prefill.taken is not None:
                masks.append(prefill.taken)
        if options.share < 1.0:
            once = self.graph.watched(instance.stage) is not None  # for all its checks of an answer
            name = instance.stage.name if once else instance.first_branch
            drawn = self._stream("share", name).random(len(self.requests))
            takes = drawn < options.share
            masks.append(takes if self.given is None else self.given.share(instance, takes))
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

    def _after_pause(self, instance: Instance) -> bool:
        """Whether an instance is not of the first segment of an answer that pauses."""
        return instance.iteration > 0 and self.graph.pausing(instance.stage) is not None

    def _goes_on(self, instance: Instance, tasks: Mapping[str, StageTasks]) -> Mask:
        """Return whose answers go on with the instance's segment."""
        decode, turn = self.graph.pausing(instance.stage), instance.iteration
        assert decode is not None
        assert self.cuts is not None
        longer = self.cuts.goes_on(decode.name, turn)
        before = tasks[instance_name(decode.name, turn - 1)].taken
        return longer if before is None else longer & before

    def _outcomes(self, name: str, names: Iterable[str], outcomes: list[float | str]) -> Ints:
        """Return which outcome of a route each request has: by the shares, or the first condition that holds."""
        count = len(self.requests)
        if all(isinstance(outcome, int | float) for outcome in outcomes):
            shares = [float(outcome) for outcome in outcomes]
            drawn = drawn_by_share(shares, count, self._stream("route", name))
            return drawn if self.given is None else self.given.outcomes(name, list(names), drawn)
        chosen: Ints = np.full(count, len(outcomes) - 1, dtype=np.int64)
        for place in reversed(range(len(outcomes))):
            condition = str(outcomes[place])
            if condition != ELSE:
                holds = evaluate(condition, self.attributes, self.graph.key("routes", name))
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
    if vote is None or not 1 <= vote <= len(names):  # a mistake, which parsing reports
        return
    lengths = np.sort(np.stack([tasks[name].tokens for name in names]), axis=0)
    for name in names:
        tasks[name] = replace(tasks[name], tokens=np.minimum(tasks[name].tokens, lengths[vote - 1]))
