"""Values of llm-d's model service and graphs of Dynamo: which engines they start, how many and with what flags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from hermes_flow.deployments.flags import Flags, parse_flags
from hermes_flow.deployments.imported import DIALECTS, Imported, read_flags, words_of
from hermes_flow.errors import ConfigError

Role = tuple[str, str, Mapping[str, Any]]  # prefill or decode, the name in the file, the worker


def read_values(settings: Mapping[str, Any], what: str) -> Imported:
    """Return the deployment: one pool of workers, or pools of prefill and decode where both are there.

    ``what`` is llm-d or dynamo. Raises ConfigError where no worker is found, or workers of one role differ.
    """
    workers = _by_role(_llm_d(settings) if what == "llm-d" else _dynamo(settings))
    if not workers:
        raise ConfigError(
            "task.path", f"has no workers; expected values of {what} with decode or prefill workers"
        )
    model = _model(settings)
    split = {"prefill", "decode"} <= set(workers)
    found = Imported()
    if split:
        found.overrides["cluster"] = "disaggregated"
    for role, worker in workers.items():
        if split and role not in ("prefill", "decode"):
            continue
        _add(found, role if split else "llm", worker, model)
        if not split:
            break
    return found


def _by_role(workers: Iterable[Role]) -> dict[str, Mapping[str, Any]]:
    """Return one worker for each role; workers of the same command are one, with the sum of their replicas.

    Raises ConfigError where workers of one role have different commands, images or parallelism.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for role, name, worker in workers:
        if role not in found:
            found[role] = name, worker
            continue
        first, same = found[role]
        if {**same, "replicas": None} != {**worker, "replicas": None}:
            raise ConfigError(
                "task.path",
                f"has two kinds of {role} workers, {first} and {name}, with different settings; "
                "expected one kind for each role (import one of them from a file without the other)",
            )
        counts = [1 if each["replicas"] is None else int(each["replicas"]) for each in (same, worker)]
        found[role] = first, {**same, "replicas": sum(counts)}
    return {role: worker for role, (_, worker) in found.items()}


def _add(found: Imported, pool: str, worker: Mapping[str, Any], model: str | None) -> None:
    """Read one kind of workers into a pool."""
    arguments = words_of(worker["arguments"])
    text = " ".join([arguments] if isinstance(arguments, str) else arguments)
    text = f"{text} {worker['program']}"
    dialect = DIALECTS[
        next((name for name in ("sglang", "trtllm") if name in text + worker["image"]), "vllm")
    ]
    flags = parse_flags(arguments, dialect.short)
    if model is not None and not any(name in flags.values for name in dialect.model) and not flags.words:
        flags = Flags({**flags.values, dialect.model[0]: model}, (), flags.environment)
    one = read_flags(dialect, flags, pool)
    parallel = worker["parallelism"]
    for name, key in (("tensor", "tensor_parallel"), ("data", "data_parallel")):
        if name in parallel:
            one.overrides.setdefault(f"cluster.pools.{pool}.{key}", int(parallel[name]))
    if worker["replicas"] is not None:
        one.overrides[f"cluster.pools.{pool}.count"] = int(worker["replicas"])
    found.overrides |= one.overrides
    found.ignored |= one.ignored
    found.notes += [note for note in one.notes if note not in found.notes]
    found.model = found.model or one.model


def _llm_d(settings: Mapping[str, Any]) -> Iterator[Role]:
    """Find the workers in the values of llm-d's model service chart."""
    for role in ("prefill", "decode"):
        worker = settings.get(role)
        if not isinstance(worker, Mapping) or worker.get("create") is False:
            continue
        containers = worker.get("containers") or []
        first = containers[0] if containers and isinstance(containers[0], Mapping) else {}
        yield role, role, _worker(worker.get("replicas"), first, worker.get("parallelism"))


def _dynamo(settings: Mapping[str, Any]) -> Iterator[Role]:
    """Find the workers in the services of a graph deployment of Dynamo."""
    spec = settings.get("spec")
    services = spec.get("services") if isinstance(spec, Mapping) else settings.get("services")
    for name, service in (services or {}).items():
        if not isinstance(service, Mapping) or "frontend" in str(name).lower():
            continue
        pod = service.get("extraPodSpec") or {}
        container = pod.get("mainContainer") if isinstance(pod, Mapping) else None
        if not isinstance(container, Mapping) or not (container.get("args") or container.get("command")):
            continue
        lower = f"{name} {service.get('subComponentType', '')}".lower()
        role = "prefill" if "prefill" in lower else "decode"
        yield role, str(name), _worker(service.get("replicas"), container, None)


def _worker(replicas: Any, container: Mapping[str, Any], parallelism: Any) -> dict[str, Any]:
    arguments = container.get("args") or container.get("command") or []
    return {
        "replicas": replicas,
        "arguments": arguments,
        "program": str(container.get("command") or ""),
        "image": str(container.get("image", "")),
        "parallelism": parallelism if isinstance(parallelism, Mapping) else {},
    }


def _model(settings: Mapping[str, Any]) -> str | None:
    """Return the model of llm-d's ``modelArtifacts``: a name, or a URI as hf://ORGANISATION/NAME."""
    artifacts = settings.get("modelArtifacts")
    if not isinstance(artifacts, Mapping):
        return None
    name = str(artifacts.get("uri") or artifacts.get("name") or "")
    return name.removeprefix("hf://") or None
