"""The workload specifications of BLIS (inference-sim): clients with shares of the rate and lengths.

https://github.com/inference-sim/inference-sim, docs/reference/workload-spec.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hermes_flow.config.schema import RepeatedPrompts, SyntheticWorkload, TraceWorkload
from hermes_flow.errors import TraceError
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import Ints
from hermes_flow.workload.arrivals import Load, parse_arrivals
from hermes_flow.workload.drawn.drawn_format import drawn_formats
from hermes_flow.workload.drawn.inference_perf_config import positive, shared_prefix, stages_of
from hermes_flow.workload.lengths import parse_lengths, tokens
from hermes_flow.workload.streams import stream

_NS_PER_TICK = 1000  # a tick is a microsecond
_NOT_READ = ("cohorts", "servegen_data")
_NOT_READ_OF_A_CLIENT = ("lifecycle", "multimodal", "reasoning", "network")
_NOT_USED_OF_A_CLIENT = ("slo_class", "model")


@drawn_formats.register("blis")
class Blis:
    """BLIS's workload specifications: the requests of all clients, merged in order of arrival."""

    @staticmethod
    def fits(path: Path, document: Any) -> bool:
        """Return whether it is such a specification."""
        return isinstance(document, Mapping) and bool(
            {"aggregate_rate", "clients", "inference_perf"} & set(document)
        )

    @staticmethod
    def draw(path: Path, document: Any, workload: TraceWorkload) -> Requests:
        """Draw the requests of every client, up to ``num_requests`` or the horizon."""
        for key in _NOT_READ:
            if document.get(key):
                raise TraceError(str(path), None, f"{key} is not read; leave it out")
        if document.get("inference_perf"):
            return _stages(path, document["inference_perf"], workload)
        return _clients(path, document, workload)


def _stages(path: Path, given: Mapping[str, Any], workload: TraceWorkload) -> Requests:
    from hermes_flow.workload.build import draw_requests

    shared = given.get("shared_prefix")
    if not isinstance(shared, Mapping) or not isinstance(given.get("stages"), list):
        raise TraceError(str(path), None, "inference_perf has no stages or no shared_prefix")
    found = [
        {
            "rate_per_s": positive(path, stage.get("rate"), "inference_perf.stages.rate"),
            "duration_s": positive(path, stage.get("duration"), "inference_perf.stages.duration"),
            # as inference-perf sends them (inference-sim, issue 845)
            "process": "poisson_fixed_count",
        }
        for stage in given["stages"]
    ]
    arrivals, most = stages_of(found, 0.0)
    inputs, outputs, repeated = shared_prefix(
        path, shared, "num_unique_system_prompts", "num_users_per_system_prompt"
    )
    drawn = SyntheticWorkload(
        kind="synthetic",
        name=workload.name,
        requests=most,
        rate_per_s=None,
        arrivals=arrivals,
        input_tokens=inputs,
        output_tokens=outputs,
        rate_scale=workload.rate_scale,
        repeated_prompts=RepeatedPrompts(repeated.prefixes, repeated.per_prefix, repeated.prefix_tokens),
    )
    return draw_requests(drawn, workload.seed)


def _clients(path: Path, document: Mapping[str, Any], workload: TraceWorkload) -> Requests:
    rate = positive(path, document.get("aggregate_rate"), "aggregate_rate")
    clients = document.get("clients")
    if not isinstance(clients, list) or not clients:
        raise TraceError(str(path), None, "clients is no list of clients")
    shares = [
        positive(path, client.get("rate_fraction"), f"clients.{place}.rate_fraction")
        for place, client in enumerate(clients)
    ]
    if abs(math.fsum(shares) - 1.0) > 1e-6:
        raise TraceError(
            str(path), None, f"the rate_fraction of all clients add up to {math.fsum(shares):g}; expected 1"
        )
    count, horizon = document.get("num_requests") or 0, document.get("horizon") or 0
    if not count and not horizon:
        raise TraceError(str(path), None, "has neither num_requests nor horizon; expected one that ends it")
    horizon_ns = horizon * _NS_PER_TICK
    most = int(count) or int(2.0 * rate * workload.rate_scale * horizon_ns / 1e9) + 100
    parts = [
        _client(path, client, place, (most, rate * share), workload)
        for place, (client, share) in enumerate(zip(clients, shares, strict=True))
    ]
    return _merged(parts, _groups(path, clients), int(count) or most, horizon_ns, _unused(clients))


def _client(
    path: Path, client: Mapping[str, Any], place: int, load: tuple[int, float], workload: TraceWorkload
) -> tuple[Ints, Ints, Ints]:
    """Return the arrivals, own prompt tokens and answers of a client."""
    key = f"clients.{place}"
    for name in _NOT_READ_OF_A_CLIENT:
        if client.get(name):
            raise TraceError(str(path), None, f"{key}.{name} is not read; leave it out")
    arrival = client.get("arrival") or {}
    process = arrival.get("process")
    given = {"process": process} | ({"cv": arrival["cv"]} if arrival.get("cv") is not None else {})
    sent = parse_arrivals(process if len(given) == 1 else given, f"{key}.arrival")
    count, rate = load
    drawn = sent.arrivals(Load(count, rate, workload.rate_scale), stream(workload.seed, f"{key} arrivals"))
    lengths = [
        tokens(
            parse_lengths(
                _distribution(path, client.get(f"{name}_distribution"), f"{key}.{name}"), f"{key}.{name}"
            ),
            len(drawn.arrival_ns),
            stream(workload.seed, f"{key} {name}"),
            f"{key}.{name}_distribution",
        )
        for name in ("input", "output")
    ]
    return drawn.arrival_ns, lengths[0], lengths[1]


def _groups(path: Path, clients: list[Any]) -> list[tuple[int, int]]:
    """Return the number and the tokens of each client's prefix; 0 tokens where it has none."""
    numbers: dict[str, int] = {}
    found = []
    for place, client in enumerate(clients):
        group, length = client.get("prefix_group"), client.get("prefix_length") or 0
        if group and not length:
            raise TraceError(
                str(path), None, f"clients.{place}.prefix_length is missing; {group} has a prefix"
            )
        found.append((numbers.setdefault(str(group), len(numbers)), int(length) if group else 0))
    return found


def _unused(clients: list[Any]) -> tuple[str, ...]:
    return tuple(
        f"workload.path: {name} of the clients is not used"
        for name in _NOT_USED_OF_A_CLIENT
        if any(client.get(name) for client in clients)
    )


def _merged(
    parts: list[tuple[Ints, Ints, Ints]],
    groups: list[tuple[int, int]],
    count: int,
    horizon_ns: int,
    notes: tuple[str, ...],
) -> Requests:
    client = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
    arrival, own, answers = (np.concatenate([part[place] for part in parts]) for place in range(3))
    order = np.argsort(arrival, kind="stable")
    if horizon_ns:
        order = order[arrival[order] <= horizon_ns]
    order = order[:count]
    prefix = np.array([number for number, _ in groups], dtype=np.int64)[client][order]
    shared = np.array([length for _, length in groups], dtype=np.int64)[client][order]
    prompts = shared + own[order]
    prefixes = None
    if shared.any():
        numbers = np.arange(len(order), dtype=np.int64)
        prefixes = SessionPrefixes(numbers, prefix, shared, prompts, answers[order])
    return Requests(arrival[order], prompts, answers[order], prefixes=prefixes, notes=notes)


def _distribution(path: Path, given: Any, name: str) -> Any:
    kind = given.get("type") if isinstance(given, Mapping) else None
    params = given.get("params") if isinstance(given, Mapping) else None
    if not isinstance(params, Mapping):
        raise TraceError(str(path), None, f"{name}_distribution has no type and params")
    if kind == "gaussian":
        bounds = {bound: max(1.0, params[bound]) for bound in ("min", "max") if params.get(bound)}
        return {
            "distribution": "normal",
            "mean": params.get("mean"),
            "std": params.get("std_dev", 0.0),
            **bounds,
        }
    if kind == "exponential":
        return {"distribution": "exponential", "mean": params.get("mean")}
    if kind == "constant":
        return {"distribution": "fixed", "value": params.get("value")}
    if kind == "empirical":
        values, weights = [float(length) for length in params], [float(share) for share in params.values()]
        return {"distribution": "choice", "values": values, "weights": weights}
    known = "gaussian, exponential, constant, empirical"
    raise TraceError(str(path), None, f"{name}_distribution.type is {kind!r}; expected one of: {known}")
