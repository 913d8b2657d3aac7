"""Traffic classes: which requests belong to each, and what sets them apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from hermes_flow.config.schema import SessionsWorkload, SyntheticWorkload, TraceWorkload
from hermes_flow.config.traffic import TrafficClass
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.program.requests import Requests
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.workload.lengths import durations_ns, parse_distribution, parse_lengths, tokens
from hermes_flow.workload.shares import check_shares, drawn_by_share
from hermes_flow.workload.streams import stream

AnyWorkload = SyntheticWorkload | SessionsWorkload | TraceWorkload
_KEY = "workload.classes"


def with_rates(
    workload: SyntheticWorkload, draw: Callable[[SyntheticWorkload, int], Requests]
) -> Requests | None:
    """Return the requests of classes that each have a rate, merged by arrival; None where they have shares.

    Each class draws as many requests as the workload has, from streams of its own, and the first ones are kept.
    """
    classes = workload.classes
    if not any(own.rate_per_s is not None for own in classes.values()):
        return None
    for name, own in classes.items():
        if own.rate_per_s is None or own.share is not None:
            raise ConfigError(
                f"{_KEY}.{name}", "expected rate_per_s and no share, as another class has a rate"
            )
    if workload.repeated_prompts is not None:
        raise ConfigError(
            "workload.repeated_prompts", "prompts repeat over the whole workload; give classes shares"
        )
    drawn = []
    for name, own in classes.items():
        seed = int(stream(workload.seed, f"class:{name}").integers(2**62))
        alone = replace(
            workload,
            classes={},
            rate_per_s=own.rate_per_s,
            arrivals=workload.arrivals if own.arrivals is None else own.arrivals,
            input_tokens=workload.input_tokens if own.input_tokens is None else own.input_tokens,
            output_tokens=workload.output_tokens if own.output_tokens is None else own.output_tokens,
        )
        drawn.append(draw(alone, seed))
        if drawn[-1].concurrency is not None:
            raise ConfigError(
                f"{_KEY}.{name}.arrivals", "users in a loop have no rate; give the classes shares"
            )
    arrival_ns = np.concatenate([one.arrival_ns for one in drawn])
    first = np.argsort(arrival_ns, kind="stable")[: workload.requests]
    which = np.repeat(np.arange(len(drawn)), [len(one) for one in drawn])

    def merged(column: str) -> Ints | None:
        columns = [getattr(one, column) for one in drawn]
        return None if columns[0] is None else np.concatenate(columns)[first]

    inputs, outputs = merged("input_tokens"), merged("output_tokens")
    assert inputs is not None
    assert outputs is not None
    return replace(
        drawn[0],
        arrival_ns=arrival_ns[first],
        input_tokens=inputs,
        output_tokens=outputs,
        model=merged("model"),
        images=merged("images"),
        adapter=merged("adapter"),
        traffic=which[first],
        classes=tuple(classes),
    )


def with_classes(requests: Requests, workload: AnyWorkload, seed: int) -> Requests:
    """Return the requests with their classes and what those set: lengths, models, priorities, tenants, timeouts."""
    classes: Mapping[str, TrafficClass] = workload.classes
    if classes:
        requests = _assigned(requests, workload, seed)
        _check(requests, workload)
        requests = _with_lengths(requests, workload, seed)
        requests = _with_named(requests, classes, "model", "models")
        requests = _with_named(requests, classes, "pipeline", "pipelines")
        requests = _with_named(requests, classes, "adapter", "adapters")
        requests = _with_named(requests, classes, "tenant", "tenants")
        if any(own.priority is not None for own in classes.values()):
            if requests.priority is not None:
                raise ConfigError(
                    _KEY, "the trace has a column 'priority'; leave the priorities of classes out"
                )
            requests = replace(
                requests, priority=_by_class(requests, [own.priority or 0 for own in classes.values()])
            )
    return _with_timeouts(requests, workload, seed)


def _assigned(requests: Requests, workload: AnyWorkload, seed: int) -> Requests:
    """Return the requests with the class of each: as drawn, as the trace says, or by the shares."""
    classes = workload.classes
    if requests.traffic is not None:
        for name in requests.classes:
            if name not in classes:
                known = did_you_mean(name, classes)
                raise ConfigError(
                    "workload.path",
                    f"the trace has requests of class {name!r}, which workload.classes lacks{known}",
                )
        for name, own in classes.items():
            if own.share is not None:
                raise ConfigError(
                    f"{_KEY}.{name}.share", "the trace says which requests belong to it; leave it out"
                )
        names = list(classes)
        place = np.array([names.index(name) for name in requests.classes], dtype=np.int64)
        traffic = (
            np.where(requests.traffic < 0, -1, place[requests.traffic]) if len(place) else requests.traffic
        )
        return replace(requests, traffic=traffic, classes=tuple(classes))
    shares: dict[str, float] = {}
    for name, own in classes.items():
        if own.rate_per_s is not None:
            raise ConfigError(
                f"{_KEY}.{name}.rate_per_s", f"workload={workload.kind} knows classes by share only"
            )
        if own.share is None:
            raise ConfigError(f"{_KEY}.{name}.share", "missing; expected a share from 0 to 1")
        shares[name] = own.share
    check_shares(shares, _KEY)
    chosen = drawn_by_share(list(shares.values()), len(requests), stream(seed, "classes"))
    if requests.session is not None:
        _, first, session = np.unique(requests.session, return_index=True, return_inverse=True)
        chosen = np.where(requests.session < 0, chosen, chosen[first][session])
    return replace(requests, traffic=chosen, classes=tuple(classes))


def _check(requests: Requests, workload: AnyWorkload) -> None:
    for name, own in workload.classes.items():
        if own.arrivals is not None and own.rate_per_s is None:
            raise ConfigError(
                f"{_KEY}.{name}.arrivals", "a class with arrivals of its own needs rate_per_s, too"
            )
        for key in ("input_tokens", "output_tokens"):
            if getattr(own, key) is None:
                continue
            if not isinstance(workload, SyntheticWorkload):
                raise ConfigError(f"{_KEY}.{name}.{key}", f"workload={workload.kind} has lengths of its own")
            if workload.repeated_prompts is not None:
                raise ConfigError(
                    f"{_KEY}.{name}.{key}", "prompts repeat over the whole workload; leave it out"
                )


def _with_lengths(requests: Requests, workload: AnyWorkload, seed: int) -> Requests:
    """Return the requests with the lengths of classes that have shares; those with rates have theirs already."""
    columns: dict[str, Any] = {"input_tokens": requests.input_tokens, "output_tokens": requests.output_tokens}
    for place, (name, own) in enumerate(workload.classes.items()):
        for key in columns if own.rate_per_s is None else ():
            given = getattr(own, key)
            if given is not None:
                where = f"{_KEY}.{name}.{key}"
                rng = stream(seed, f"class:{name}:{key}")
                drawn = tokens(parse_lengths(given, where), len(requests), rng, where)
                columns[key] = np.where(requests.traffic == place, drawn, columns[key])
    return replace(requests, **columns)


def _with_named(
    requests: Requests, classes: Mapping[str, TrafficClass], key: str, names_key: str
) -> Requests:
    """Return the requests with the model, pipeline or tenant that their class names."""
    named = [getattr(own, key) for own in classes.values()]
    if not any(named):
        return requests
    if getattr(requests, key) is not None:
        said = key in ("model", "adapter")
        what = "the workload says so of each request" if said else f"the trace has a column {key!r}"
        raise ConfigError(_KEY, f"{what}; leave the {names_key} of classes out")
    for name, own in classes.items():
        if getattr(own, key) is None and key not in ("tenant", "adapter"):
            raise ConfigError(f"{_KEY}.{name}.{key}", f"missing; other classes name a {key}")
    names = tuple(dict.fromkeys(name for name in named if name))
    column = _by_class(requests, [names.index(name) if name else -1 for name in named], none=-1)
    columns: dict[str, Any] = {key: column, names_key: names}
    return replace(requests, **columns)


def _with_timeouts(requests: Requests, workload: AnyWorkload, seed: int) -> Requests:
    """Return the requests with the time after which each user gives up: that of its class, or of the workload."""
    common = workload.timeout_s
    own = {name: one.timeout_s for name, one in workload.classes.items() if one.timeout_s is not None}
    if common is None and not own:
        return requests
    timeout_ns = np.full(len(requests), -1, dtype=np.int64)
    if common is not None:
        timeout_ns = _timeouts_ns(common, len(requests), seed, "timeouts", "workload.timeout_s")
    for place, name in enumerate(workload.classes):
        if name in own:
            where = f"{_KEY}.{name}.timeout_s"
            drawn = _timeouts_ns(own[name], len(requests), seed, f"class:{name}:timeouts", where)
            assert requests.traffic is not None
            timeout_ns = np.where(requests.traffic == place, drawn, timeout_ns)
    return replace(requests, timeout_ns=timeout_ns)


def _timeouts_ns(value: Any, count: int, seed: int, name: str, where: str) -> Ints:
    """Return how long each request would wait."""
    if isinstance(value, (int, float)):
        return np.full(count, round(value * NS_PER_S), dtype=np.int64)
    return durations_ns(parse_distribution(value, where, whole=False), count, stream(seed, name), where)


def _by_class(requests: Requests, values: list[int], none: int = 0) -> Ints:
    """Return a column with the value of each request's class, ``none`` for those without one."""
    assert requests.traffic is not None
    return np.array([*values, none], dtype=np.int64)[requests.traffic]
