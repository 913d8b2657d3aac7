"""The bounds of an SLO with their values, and the requests that keep within them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.itl import RunGaps
from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.spans import stage_spans
from hermes_flow.program.program import Attainment, SLOBounds
from hermes_flow.program.same_bits import mean
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.recording import Recording

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

ATTAINMENT = "attainment"
"""The name of the bound on the share of requests that are within several limits at once."""


def bound_name(metric: str, percentile: float) -> str:
    """Return the name of a bound in the summary, as in ``ttft_p99_s`` or ``stages.search_p90_s``."""
    return f"{metric}_p{percentile:g}_s"


def bound_label(name: str) -> str:
    """Return a bound's name as people say it: ``TTFT p99``, ``search p90``, ``chat TTFT p99``, ``attainment``."""
    whole, _, last = name.rpartition(".")
    if last == ATTAINMENT and whole:
        return f"{whole.partition('.')[2]} {ATTAINMENT}"
    parts = name.rsplit("_", 2)
    if len(parts) != 3:
        return name
    area, dot, rest = parts[0].partition(".")
    if area in ("pipelines", "classes"):
        pipeline, _, metric = rest.rpartition(".")
        return f"{pipeline} {metric.upper()} {parts[1]}"
    return f"{rest if dot else area.upper()} {parts[1]}"


def bound_results(
    recording: Recording, found: Latencies, chosen: Mask | None = None
) -> dict[str, dict[str, Any]]:
    """Return every bound of the SLO with its limit, its value and whether it is met.

    A bound on percentile p is met if the percentile of completed requests is within it and no more than 100 − p
    percent of all requests failed. ``attainment`` has a ``limit_share`` and a ``value_share`` of all requests
    instead of seconds. With ``chosen``, only these requests count, and the gaps between tokens are left out.
    """
    slo, status = recording.program.slo, recording.status
    values = request_values(recording, found, slo)
    bounds: dict[str, dict[str, Any]] = {}
    everyone = np.ones(len(status), np.bool_) if chosen is None else chosen
    for metric, limits in slo.bounds.items():
        if metric == "itl" and chosen is not None:
            continue
        own = own_requests(recording, metric) & everyone
        failed_percent = 100 * mean(status[own] != 0) if own.any() else 0.0
        reached_s = _values_s(recording, values, metric, sorted(limits), everyone)
        for (percentile, limit_s), value_s in zip(sorted(limits.items()), reached_s, strict=True):
            in_time = value_s is None or value_s <= limit_s
            met = in_time and failed_percent <= 100 - percentile + 1e-9
            bounds[bound_name(metric, percentile)] = {"limit_s": limit_s, "value_s": value_s, "met": met}
    for name, wanted in attainments(slo).items():
        own = everyone & own_requests(recording, name)
        share = mean(within_limits(recording, values, wanted.limits)[own]) if own.any() else None
        bounds[name] = {
            "limit_share": wanted.share,
            "value_share": share,
            "met": share is None or share >= wanted.share - 1e-9,
        }
    return bounds


def attainments(slo: SLOBounds) -> dict[str, Attainment]:
    """Return the attainments of the SLO by the names of their bounds, with limits by metric."""
    found = {} if slo.within is None else {ATTAINMENT: Attainment(slo.within_share, slo.within)}
    for part, wanted in slo.parts.items():
        limits = {f"{part}.{metric}": limit_s for metric, limit_s in wanted.limits.items()}
        found[f"{part}.{ATTAINMENT}"] = Attainment(wanted.share, limits)
    return found


def attainment_limits(slo: SLOBounds, name: str) -> dict[str, float]:
    """Return the limits of the attainment called ``name``, in seconds by metric; none where there is no such one."""
    found = attainments(slo).get(name)
    return {} if found is None else found.limits


def request_values(recording: Recording, found: Latencies, slo: SLOBounds) -> dict[str, Floats]:
    """Return, for each metric that the SLO bounds, its value for every request in seconds; NaN where it has none.

    The gaps between tokens (``itl``) belong to no single request here, and are left out.
    """
    known = found.by_metric()
    values = dict(known)
    if recording.program.slo.own_classes:
        own = own_requests(recording, ATTAINMENT)
        values = {metric: np.where(own, of, np.nan) for metric, of in known.items()}
    shared = [metric for wanted in attainments(slo).values() for metric in wanted.limits]
    for metric in dict.fromkeys((*slo.bounds, *shared)):
        area, _, name = metric.partition(".")
        if area == "stages":
            values[metric] = np.where(own_requests(recording, metric), _stage_s(recording, name), np.nan)
        elif area in ("pipelines", "classes"):
            of = known.get(metric.rpartition(".")[2])
            if of is not None:
                values[metric] = np.where(own_requests(recording, metric), of, np.nan)
    return values


def within_limits(recording: Recording, values: Mapping[str, Floats], limits: Mapping[str, float]) -> Mask:
    """Return which requests completed with every metric of ``limits`` within its limit, in seconds."""
    met: Mask = recording.status == 0
    for metric, limit_s in limits.items():
        if metric in values:
            met = met & ~(values[metric] > limit_s)
    return met


def loosest_limits(slo: SLOBounds) -> dict[str, float]:
    """Return the limits of a single request: the loosest bound of every metric, and those of ``within``.

    Gaps between tokens belong to no single request.
    """
    limits = {metric: max(bounds.values()) for metric, bounds in slo.bounds.items() if metric != "itl"}
    for wanted in attainments(slo).values():
        for metric, limit_s in wanted.limits.items():
            limits[metric] = min(limit_s, limits.get(metric, limit_s))
    return limits


def _values_s(
    recording: Recording,
    values: Mapping[str, Floats],
    metric: str,
    percentiles: Sequence[float],
    chosen: Mask,
) -> list[float] | list[None]:
    """Return percentiles of a metric over completed requests; those of ``itl`` over all gaps of the run."""
    if metric == "itl":
        found = RunGaps(recording).mean_and_quantiles([percentile / 100 for percentile in percentiles])
        if found is None:
            return [None] * len(percentiles)
        return [gap / (PS_PER_NS * NS_PER_S) for gap in found[1]]
    known = values[metric]
    known = known[chosen & ~np.isnan(known)]
    if not len(known):
        return [None] * len(percentiles)
    known.sort()
    return [float(value) for value in np.percentile(known, percentiles, overwrite_input=True)]


def own_requests(recording: Recording, metric: str) -> Mask:
    """Return the requests that a metric is about: those of a class or of a pipeline, or all.

    Requests of classes with bounds of their own are subject to no other.
    """
    requests, classes = recording.program.requests, recording.program.slo.own_classes
    area, _, rest = metric.partition(".")
    name = rest.rpartition(".")[0]
    if area == "classes" and requests.traffic is not None:
        chosen: Mask = requests.traffic == requests.classes.index(name)
        return chosen
    own: Mask = np.ones(len(requests), np.bool_)
    if classes and requests.traffic is not None:
        own = ~np.isin(requests.traffic, [requests.classes.index(other) for other in classes])
    if area == "pipelines" and requests.pipeline is not None:
        own &= requests.pipeline == requests.pipelines.index(name)
    return own


def class_bounds(bounds: dict[str, dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Return the results of the bounds that a class has of its own; none where those of the SLO hold for it."""
    prefix = f"classes.{name}."
    return {key.removeprefix(prefix): bound for key, bound in bounds.items() if key.startswith(prefix)}


def _stage_s(recording: Recording, stage: str) -> Floats:
    """Return the time that each request spends in all its tasks of a stage, waiting included; NaN without any."""
    total = np.full(len(recording.program.requests), np.nan)
    for span in stage_spans(recording):
        if span.stage == stage:
            here = (span.client >= 0) & (recording.status == 0)
            time = np.where(here, (span.finish_ns - span.ready_ns) / NS_PER_S, 0.0)
            total = np.where(here, np.nan_to_num(total) + time, total)
    return total
