"""Lowers the bounds of an SLO to seconds, and checks that what they bound exists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from hermes_flow.config.schema import SLO
from hermes_flow.config.traffic import TrafficClass
from hermes_flow.config.within import Within
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.program.program import Attainment, SLOBounds
from hermes_flow.program.units import MS_PER_S
from hermes_flow.stages.graph import Graph

_REQUEST_METRICS = ("ttft", "tpot", "e2e")


def slo_bounds(slo: SLO, graph: Graph, problems: list[str], classes: Mapping[str, TrafficClass]) -> SLOBounds:
    """Return the bounds in seconds; what is wrong with them is appended to ``problems``.

    ``graph`` has the stages and the parts that can be bounded, ``classes`` the bounds of traffic classes.
    """
    bounds: dict[str, dict[float, float]] = {}
    parts: dict[str, Attainment] = {}
    for metric in (*_REQUEST_METRICS, "itl"):
        _add(bounds, metric, getattr(slo, f"{metric}_ms"), f"slo.{metric}_ms", problems)
    for stage, limits in slo.stages.items():
        if _known(stage, graph.stages, "slo.stages", "stage", problems):
            _add(bounds, f"stages.{stage}", limits, f"slo.stages.{stage}", problems)
    for name, own in slo.pipelines.items():
        if not graph.parts:
            problems.append(
                f"slo.pipelines.{name}: one pipeline runs; bounds by pipeline need one with parts, as pipeline=mixed"
            )
        elif _known(name, graph.parts, "slo.pipelines", "part of the pipeline", problems):
            for metric in _REQUEST_METRICS:
                key = f"slo.pipelines.{name}.{metric}_ms"
                _add(bounds, f"pipelines.{name}.{metric}", getattr(own, f"{metric}_ms"), key, problems)
            if own.within is not None:
                limits = _within(own.within, f"slo.pipelines.{name}.within", problems)
                parts[f"pipelines.{name}"] = Attainment(own.within.share, limits)
    having = tuple(name for name, one in classes.items() if one.slo is not None)
    for name in having:
        for metric in _REQUEST_METRICS:
            key = f"workload.classes.{name}.slo.{metric}_ms"
            limits = getattr(classes[name].slo, f"{metric}_ms")
            _add(bounds, f"classes.{name}.{metric}", limits, key, problems)
        share = classes[name].slo.within  # type: ignore[union-attr]
        if share is not None:
            limits = _within(share, f"workload.classes.{name}.slo.within", problems)
            parts[f"classes.{name}"] = Attainment(share.share, limits)
    if slo.within is None:
        return SLOBounds(slo.name, bounds, own_classes=having, parts=parts)
    limits = _within(slo.within, "slo.within", problems)
    return SLOBounds(slo.name, bounds, limits, slo.within.share, having, parts)


def _add(
    bounds: dict[str, dict[float, float]],
    metric: str,
    limits: Mapping[str, float],
    key: str,
    problems: list[str],
) -> None:
    by_percentile: dict[float, float] = {}
    for name, limit_ms in limits.items():
        try:
            by_percentile[_percentile(name, f"{key}.{name}")] = limit_ms / MS_PER_S
        except ConfigError as error:
            problems.append(str(error))
    if by_percentile:
        bounds[metric] = dict(sorted(by_percentile.items()))


def _within(within: Within, key: str, problems: list[str]) -> dict[str, float]:
    """Return the limits of the attainment in seconds by metric."""
    limits: dict[str, float] = {}
    for metric in _REQUEST_METRICS:
        limit_ms = getattr(within, f"{metric}_ms")
        if limit_ms is None:
            continue
        limits[metric] = limit_ms / MS_PER_S
    if not limits:
        problems.append(f"{key}: has no limit; expected at least one of ttft_ms, tpot_ms, e2e_ms")
    return limits


def _known(name: str, names: Iterable[str], key: str, what: str, problems: list[str]) -> bool:
    known = list(names)
    if name in known:
        return True
    problems.append(f"{key}.{name}: there is no {what} called {name!r}{did_you_mean(name, known)}")
    return False


def _percentile(name: str, key: str) -> float:
    try:
        value = float(name[1:]) if name.startswith("p") else -1.0
    except ValueError:
        value = -1.0
    if not 0.0 < value <= 100.0:
        raise ConfigError(key, f"{name!r} is not a percentile; expected p50, p90, p99 or the like")
    return value
