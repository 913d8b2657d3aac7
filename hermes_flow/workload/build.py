"""Builds the columns of Requests for a workload: from distributions, in sessions, or from a trace."""

from __future__ import annotations

import numpy as np

from hermes_flow.config.physical_values import out_of_range
from hermes_flow.config.schema import SessionsWorkload, SyntheticWorkload, TraceWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.workload.adapters import adapter_names, drawn_adapters
from hermes_flow.workload.arrivals import Load, parse_arrivals
from hermes_flow.workload.drift import check_drift, drifting_arrivals, drifting_lengths, part_of
from hermes_flow.workload.lengths import parse_distribution, parse_lengths, tokens
from hermes_flow.workload.repeated import common_beginning, repeated_prompts
from hermes_flow.workload.sessions import draw_sessions
from hermes_flow.workload.shares import drawn_models
from hermes_flow.workload.streams import stream

MOST_IMAGES = 10**6  # of one request, as in a trace


def build_requests(workload: SyntheticWorkload | SessionsWorkload | TraceWorkload, seed: int) -> Requests:
    """Return the requests of ``workload`` in order of arrival, or session by session; equal arguments, equal arrays.

    A trace is the same for every seed. Raises ConfigError on a bad figure and TraceError on a bad file.
    """
    for problem in out_of_range(workload, "workload"):
        key, _, rest = problem.partition(": ")
        raise ConfigError(key, rest)
    if not workload.classes and workload.timeout_s is None:
        return _build(workload, seed)
    from hermes_flow.workload.classes import with_classes, with_rates

    drawn = with_rates(workload, draw_requests) if isinstance(workload, SyntheticWorkload) else None
    return with_classes(_build(workload, seed) if drawn is None else drawn, workload, seed)


def _build(workload: SyntheticWorkload | SessionsWorkload | TraceWorkload, seed: int) -> Requests:
    if isinstance(workload, TraceWorkload):
        from hermes_flow.workload.reading.requests import read_trace

        return read_trace(workload)
    if isinstance(workload, SessionsWorkload):
        return draw_sessions(workload, seed)
    return draw_requests(workload, seed)


def draw_requests(workload: SyntheticWorkload, seed: int) -> Requests:
    """Return requests drawn from distributions; raises ConfigError."""
    process = parse_arrivals(workload.arrivals, "workload.arrivals")
    inputs = parse_lengths(workload.input_tokens, "workload.input_tokens")
    outputs = parse_lengths(workload.output_tokens, "workload.output_tokens")
    load = Load(workload.requests, workload.rate_per_s, workload.rate_scale)
    if workload.drift:
        check_drift(workload.drift, process, repeated=workload.repeated_prompts is not None)
    drawn = process.arrivals(load, stream(seed, "arrivals"))
    count, arrival_ns = len(drawn.arrival_ns), drawn.arrival_ns
    answers = tokens(outputs, count, stream(seed, "output_lengths"), "workload.output_tokens")
    prefixes: SessionPrefixes | None = None
    if workload.prefix_share and workload.repeated_prompts is not None:
        raise ConfigError(
            "workload.prefix_share", "repeated_prompts says what prompts share; give one of them"
        )
    if workload.repeated_prompts is None:
        prompts = tokens(inputs, count, stream(seed, "input_lengths"), "workload.input_tokens")
    else:
        prompts, prefixes = repeated_prompts(workload.repeated_prompts, inputs, answers, seed)
    if workload.drift:
        rate_per_s, parts = load.mean_rate_per_s, workload.drift
        arrival_ns = drifting_arrivals(arrival_ns, rate_per_s, parts)
        part = part_of(arrival_ns, rate_per_s, parts)
        prompts = drifting_lengths(prompts, part, parts, "input_tokens", seed)
        answers = drifting_lengths(answers, part, parts, "output_tokens", seed)
    if workload.prefix_share:
        prefixes = common_beginning(workload.prefix_share, prompts, answers)
    return Requests(
        arrival_ns=arrival_ns,
        input_tokens=prompts,
        output_tokens=answers,
        prefixes=prefixes,
        model=drawn_models(workload.models, count, stream(seed, "models")),
        models=tuple(workload.models),
        adapter=drawn_adapters(workload.adapters, count, seed),
        adapters=adapter_names(workload.adapters),
        images=_images(workload, count, seed),
        concurrency=drawn.concurrency,
        think_ns=drawn.think_ns,
    )


def _images(workload: SyntheticWorkload, count: int, seed: int) -> Ints | None:
    """Draw the number of images of each request; None where the workload has none."""
    if workload.images is None:
        return None
    key = "workload.images"
    drawn = parse_distribution(workload.images, key, whole=False)
    values = drawn.sample(count, stream(seed, "images"), whole=False)
    if count and values.max() > MOST_IMAGES:
        raise ConfigError(key, f"gives {values.max():.3g}; expected at most {MOST_IMAGES:,}")
    return np.maximum(np.rint(values), 0.0).astype(np.int64)
