"""Looks up the sizes of single stages that a trace lists, and checks that the pipeline has such stages.

The list of a request also says which of the optional stages it takes: how often it goes through a loop, which outcome
of a route it has, and whether it takes a stage with a share. A request without a list, or a loop or route of which
nobody lists a stage, is drawn as the pipeline says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.compiler.expand import Instance, branches_of, instance_name
from hermes_flow.compiler.iterations import MOST_ITERATIONS
from hermes_flow.errors import TraceError, did_you_mean
from hermes_flow.program.requests import Requests
from hermes_flow.program.stage_sizes import UNKNOWN, StageSizes
from hermes_flow.program.units import Ints
from hermes_flow.stages.graph import Graph, Stage
from hermes_flow.stages.vector_search import VectorSearch

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Given:
    """What the trace lists of one instance of a stage, by request; UNKNOWN where it lists nothing."""

    input_tokens: Ints
    output_tokens: Ints
    duration_ns: Ints
    listed: Mask


@dataclass(frozen=True, slots=True)
class _Entries:
    """The entries of one stage: their requests, their instances, and their places in the sizes."""

    request: Ints
    instance: Ints
    place: Ints


class GivenSizes:
    """The listed sizes of a workload for one pipeline. Raises TraceError where the pipeline has no such stage."""

    def __init__(self, graph: Graph, requests: Requests, sizes: StageSizes) -> None:
        self._graph = graph
        self._sizes = sizes
        self._count = len(requests)
        self._has_list = np.zeros(self._count, dtype=np.bool_)
        self._has_list[sizes.request] = True
        self._by_stage: dict[str, _Entries] = {}
        for number, name in enumerate(sizes.names):
            places = np.flatnonzero(sizes.stage == number)
            if not len(places):
                continue
            if name not in graph.stages:
                near = did_you_mean(name, graph.stages)
                raise self._error(places[0], f"the pipeline has no stage {name!r}{near}")
            entries = _Entries(sizes.request[places], sizes.instance[places], places)
            self._check(graph.stages[name], entries, requests)
            self._by_stage[name] = entries

    def of(self, instance: Instance) -> Given | None:
        """Return what is listed of an instance; None where nothing is."""
        entries = self._by_stage.get(instance.stage.name)
        if entries is None:
            return None
        own = entries.instance == self._number(instance)
        if not own.any():
            return None
        request, place = entries.request[own], entries.place[own]
        listed = np.zeros(self._count, dtype=np.bool_)
        listed[request] = True
        inputs, outputs, durations = np.full((3, self._count), UNKNOWN, dtype=np.int64)
        inputs[request] = self._sizes.input_tokens[place]
        outputs[request] = self._sizes.output_tokens[place]
        durations[request] = self._sizes.duration_ns[place]
        return Given(inputs, outputs, durations, listed)

    def times(self, loop: str, drawn: Ints) -> Ints:
        """Return how often each request goes through a loop: as often as it lists, else as drawn."""
        listed = np.zeros(self._count, dtype=np.int64)
        for name, entries in self._by_stage.items():
            stage = self._graph.stages[name]
            if stage.options.repeat == loop:
                turns = entries.instance // branches_of(self._graph, stage) + 1
                np.maximum.at(listed, entries.request, turns)
        return np.where(listed > 0, listed, drawn)

    def outcomes(self, route: str, names: list[str], drawn: Ints) -> Ints:
        """Return the outcome of a route by shares that each request has: that of the stages it lists, else as drawn.

        A request with a list that has no stage of the route has the outcome without stages, if there is one.
        """
        chosen = np.full(self._count, UNKNOWN, dtype=np.int64)
        for name, entries in self._by_stage.items():
            outcome = self._outcome(self._graph.stages[name], route)
            if outcome not in names:
                continue
            place = names.index(outcome)
            other = (chosen[entries.request] != UNKNOWN) & (chosen[entries.request] != place)
            if other.any():
                first = int(np.flatnonzero(other)[0])
                before = names[chosen[entries.request[first]]]
                problem = f"lists stages of two outcomes of the route {route!r}: {before} and {outcome}"
                raise self._error(entries.place[first], problem)
            chosen[entries.request] = place
        if (chosen == UNKNOWN).all():
            return drawn
        taken = {self._outcome(stage, route) for stage in self._graph.stages.values()}
        bare = [place for place, name in enumerate(names) if name not in taken]
        rest = self._has_list & (chosen == UNKNOWN)
        if bare:
            chosen[rest] = bare[0]
        return np.where(chosen == UNKNOWN, drawn, chosen)

    def share(self, instance: Instance, drawn: Mask) -> Mask:
        """Return which requests take a stage with a share: those that list it or its decode, else as drawn."""
        stage = instance.stage
        names = [stage.name]
        if stage.role == "prompt":
            names += [name for name in self._graph.successors(stage.name) if self._is_answer(name)]
        if not any(name in self._by_stage for name in names):
            return drawn
        listed = np.zeros(self._count, dtype=np.bool_)
        for name in names:
            entries = self._by_stage.get(name)
            if entries is not None:
                listed[entries.request[entries.instance == self._number(instance)]] = True
        return np.where(self._has_list, listed, drawn)

    def check_taken(self, instance: Instance, given: Given, taken: Mask | None) -> None:
        """Raise TraceError where a request lists an instance that it does not take."""
        if taken is None:
            return
        wrong = np.flatnonzero(given.listed & ~taken)
        if len(wrong):
            raise self.error(int(wrong[0]), instance, "is listed, but the request does not take it")

    def error(self, request: int, instance: Instance, problem: str) -> TraceError:
        """Return the error of what a request lists of an instance."""
        line, words = self._sizes.listing.place(int(self._sizes.rows[request]))
        return TraceError(
            str(self._sizes.listing.path), line, f"{words}stages: {_called(instance)} {problem}"
        )

    def _number(self, instance: Instance) -> int:
        return instance.iteration * branches_of(self._graph, instance.stage) + instance.branch

    def _outcome(self, stage: Stage, route: str) -> str | None:
        """Return the outcome of a route with which a stage is taken; a decode goes with its prefill."""
        own = stage.options.route.get(route)
        if own is None and stage.role == "answer" and stage.options.after:
            before = self._graph.stages.get(stage.options.after[0])
            own = None if before is None else before.options.route.get(route)
        return own

    def _is_answer(self, name: str) -> bool:
        return self._graph.stages[name].role == "answer"

    def _error(self, place: int, problem: str) -> TraceError:
        sizes = self._sizes
        line, words = sizes.listing.place(int(sizes.rows[sizes.request[place]]))
        return TraceError(str(sizes.listing.path), line, f"{words}stages: {problem}")

    def _check(self, stage: Stage, entries: _Entries, requests: Requests) -> None:
        """Check that a stage can have what is listed of it."""
        graph, sizes, name = self._graph, self._sizes, stage.name
        if stage.role == "context" or graph.pausing(stage) is not None or graph.watched(stage) is not None:
            why = (
                "its context is drawn" if stage.role == "context" else "it is cut in the middle of an answer"
            )
            raise self._error(entries.place[0], f"{name!r} ({stage.kind}) cannot be listed: {why}")
        branches = branches_of(graph, stage)
        most = branches * (1 if stage.options.repeat is None else MOST_ITERATIONS)
        above = np.flatnonzero(entries.instance >= most)
        if len(above):
            there = f"at most {most - 1}" if most > 1 else "0, as it runs once"
            problem = f"instance {entries.instance[above[0]]} of {name!r}; expected {there}"
            raise self._error(entries.place[above[0]], problem)
        for key, why in _never(stage).items():
            given = np.flatnonzero(getattr(sizes, key)[entries.place] != UNKNOWN)
            if len(given):
                shown = "duration_us" if key == "duration_ns" else key
                raise self._error(entries.place[given[0]], f"{name!r} ({stage.kind}) has no {shown}: {why}")
        for key in ("input_tokens", "output_tokens") if stage.role in ("prompt", "answer") else ():
            none = np.flatnonzero(getattr(sizes, key)[entries.place] == 0)
            if len(none):
                raise self._error(entries.place[none[0]], f"{key} of {name!r} is 0; expected at least 1")
        if graph.parts and requests.pipeline is not None:
            part = graph.parts.index(graph.part_of(name))
            other = np.flatnonzero(requests.pipeline[entries.request] != part)
            if len(other):
                problem = f"{name!r} is not of the pipeline that the request takes (column pipeline)"
                raise self._error(entries.place[other[0]], problem)


def _called(instance: Instance) -> str:
    number = instance_name(instance.stage.name, instance.iteration, instance.branch)
    return repr(number)


def _never(stage: Stage) -> Mapping[str, str]:
    """Return the sizes that a stage cannot have, each with the reason."""
    if stage.role == "prompt":
        return {
            "output_tokens": "they are those of its decode",
            "duration_ns": "the steps of an LLM are simulated",
        }
    if stage.role == "answer":
        return {"duration_ns": "the steps of an LLM are simulated"}
    never = {}
    if getattr(stage.params, "adds", None) is None:
        never["output_tokens"] = "it adds nothing to the prompts after it"
    if getattr(stage.params, "service_ns", None) is not None:
        never["input_tokens"] = "its tokens are those of the prompt or of the answer before it"
    elif isinstance(stage.params, VectorSearch):
        never["input_tokens"] = "it handles a vector"
    return never
