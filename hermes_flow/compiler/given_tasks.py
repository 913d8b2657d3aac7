"""Puts the sizes that a trace lists in the place of drawn ones, and finds sizes that contradict each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hermes_flow.compiler.expand import Instance
from hermes_flow.compiler.given_sizes import Given, GivenSizes
from hermes_flow.compiler.stage_tasks import Mask, StageTasks, outputs, prefill_of
from hermes_flow.program.requests import Requests
from hermes_flow.program.stage_sizes import UNKNOWN
from hermes_flow.program.units import Ints
from hermes_flow.stages.decode import Decode
from hermes_flow.stages.graph import Graph
from hermes_flow.stages.measured_time import measured_ns
from hermes_flow.stages.prefill import Prefill


def given_prompt(
    sizes: GivenSizes,
    given: Given,
    prompt: Ints,
    instance: Instance,
    tasks: Mapping[str, StageTasks],
    found: frozenset[str],
    requests: Requests,
) -> Ints:
    """Return the tokens of a prompt, listed ones in the place of ``prompt``, which follows from everything else.

    ``found`` are the instances whose tokens it holds. Raises TraceError where a listed prompt is shorter than what it
    begins with, or where all its parts are listed and it is not their sum.
    """
    listed = given.input_tokens != UNKNOWN
    if instance.twin is not None:
        _refuse(sizes, instance, listed & (given.input_tokens != prompt), given.input_tokens, prompt, "of")
        return prompt
    least, exact = requests.input_tokens, np.zeros(len(prompt), dtype=np.bool_)
    begins = np.ones(len(prompt), dtype=np.bool_)
    for name in instance.continues:
        decode = tasks[name]
        prefill = prefill_of(decode, tasks)
        assert prefill is not None
        goes_on = begins if prefill.taken is None else begins & prefill.taken
        answer = outputs(decode.tokens, decode.taken)
        least = np.where(goes_on, prefill.tokens + answer, least)
        parts = [_known(prefill, "input_tokens"), _known(decode, "output_tokens")]
        adding = [tasks[one] for one in found if one in tasks and tasks[one].adds is not None]
        parts += [_known(one, "output_tokens") | ~_takes(one) for one in adding]
        exact = np.where(goes_on, np.logical_and.reduce(parts), exact)
        begins = begins & ~goes_on
    params = instance.stage.params
    if isinstance(params, Prefill) and isinstance(params.turn_tokens, Mapping):
        exact = np.zeros_like(exact)
    for name in instance.reads:
        own = tasks[name]
        least = least + np.where(_takes(own), own.tokens, 0)
        exact = exact & (_known(own, "output_tokens") | ~_takes(own))
    _refuse(sizes, instance, listed & (given.input_tokens < least), given.input_tokens, least, "at least")
    unequal = listed & exact & (given.input_tokens != prompt)
    _refuse(sizes, instance, unequal, given.input_tokens, prompt, "the sum of its listed parts,")
    return np.where(listed, given.input_tokens, prompt)


def with_given(
    own: StageTasks,
    sizes: GivenSizes,
    graph: Graph,
    requests: Requests,
    tasks: Mapping[str, StageTasks],
) -> StageTasks:
    """Return tasks that are no prompts with what is listed of them; raises TraceError on a contradiction."""
    given, instance = own.given, own.instance
    if given is None:
        return own
    known = given.duration_ns if (given.duration_ns != UNKNOWN).any() else None
    if instance.stage.role != "answer":
        adds = own.adds
        if adds is not None:
            adds = np.where(given.output_tokens != UNKNOWN, given.output_tokens, adds)
        tokens = np.where(given.input_tokens != UNKNOWN, given.input_tokens, own.tokens)
        return replace(own, tokens=tokens, adds=adds, known_ns=known)
    listed = given.output_tokens != UNKNOWN
    prefill = prefill_of(own, tasks)
    if prefill is not None:
        wrong = (given.input_tokens != UNKNOWN) & (given.input_tokens != prefill.tokens)
        _refuse(sizes, instance, wrong, given.input_tokens, prefill.tokens, "those of its prefill,")
    if _writes_the_answer(graph, instance):
        answer = requests.output_tokens
        wrong = listed & (given.output_tokens != answer)
        what = "the output_tokens of the request,"
        _refuse(sizes, instance, wrong, given.output_tokens, answer, what, "output_tokens")
    return replace(own, tokens=np.where(listed, given.output_tokens, own.tokens))


def with_measured_time(own: StageTasks) -> StageTasks:
    """Return tasks with the measured time of their stage, where the trace lists none; raises ConfigError."""
    measured = own.instance.stage.options.measured
    if measured is None:
        return own
    taken = own.tokens if own.taken is None else own.tokens[own.taken]
    times = np.zeros_like(own.tokens)
    times[slice(None) if own.taken is None else own.taken] = measured_ns(measured, taken, "measured")
    known = own.known_ns
    return replace(own, known_ns=times if known is None else np.where(known == UNKNOWN, times, known))


def _writes_the_answer(graph: Graph, instance: Instance) -> bool:
    """Whether a decode is the only one of its pipeline, and writes the output tokens of the request as they are."""
    stage = instance.stage
    part = graph.part_of(stage.name)
    answers = [
        other
        for other in graph.stages.values()
        if other.role == "answer" and graph.part_of(other.name) == part
    ]
    params = stage.params
    plain = isinstance(params, Decode) and params.output_tokens is None and not params.spread_cv
    return (
        plain
        and getattr(params, "output_scale", 0.0) == 1.0
        and len(answers) == 1
        and stage.options.branches == 1
        and stage.options.repeat is None
    )


def _takes(own: StageTasks) -> Mask:
    return np.ones(len(own.tokens), dtype=np.bool_) if own.taken is None else own.taken


def _known(own: StageTasks, key: str) -> Mask:
    if own.given is None:
        return np.zeros(len(own.tokens), dtype=np.bool_)
    known: Mask = getattr(own.given, key) != UNKNOWN
    return known


def _refuse(
    sizes: GivenSizes,
    instance: Instance,
    wrong: Mask,
    found: Ints,
    expected: Ints,
    what: str,
    key: str = "input_tokens",
) -> None:
    """Raise TraceError at the first request whose listed size is ``wrong``."""
    rows = np.flatnonzero(wrong)
    if len(rows):
        first = int(rows[0])
        what = f"the prompt that its branches share, {what}" if what == "of" else what
        raise sizes.error(first, instance, f"has {key} {found[first]}; expected {what} {expected[first]}")
