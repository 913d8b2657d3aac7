"""Finds the servers of a Docker Compose file or of Kubernetes manifests: their command lines and how many run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from hermes_flow.config.documents import read_yaml
from hermes_flow.errors import ConfigError

_WORKLOADS = ("Deployment", "StatefulSet", "ReplicaSet", "Job", "Pod")
_IMAGES = {"vllm": "vllm", "sglang": "sglang", "trtllm": "tensorrt|trtllm"}
_ENTRIES = {
    "vllm": ("vllm", "serve"),
    "sglang": ("python3", "-m", "sglang.launch_server"),
    "trtllm": ("trtllm-serve",),
}


@dataclass(frozen=True, slots=True)
class Server:
    """A container: its ``name``, the words of its command line, how many run, its environment (``NAME=value``)."""

    name: str
    image: str
    words: tuple[str, ...]
    replicas: int
    environment: tuple[str, ...]


def server_in(text: str, engine: str) -> Server | None:
    """Return the one container of ``engine`` (vllm, sglang or trtllm); None where ``text`` is no such file.

    Raises DocumentError for text that is no YAML, and ConfigError where no container, or more than one, starts it.
    """
    documents = [document for document in _documents(text) if isinstance(document, Mapping)]
    if not any("services" in each or {"apiVersion", "kind"} <= set(each) for each in documents):
        return None
    servers = [server for document in documents for server in _servers(document)]
    ours = _alike(
        [
            server
            for server in servers
            if re.search(_IMAGES[engine], f"{server.image} {' '.join(server.words)}")
        ]
    )
    if len(ours) != 1:
        names = ", ".join(server.name for server in ours or servers) or "none"
        expected = f"expected one that starts {engine}, or a command line in quotes"
        found = f"has {len(ours)} containers of {engine}" if ours else f"has no container of {engine}"
        raise ConfigError("task.path", f"{found} ({names}); {expected}")
    (server,) = ours
    entry = _ENTRIES[engine]
    if not re.search(
        entry[-1] if engine != "vllm" else r"vllm serve|vllm\.entrypoints", " ".join(server.words)
    ):
        words = server.words  # the image starts the server, and the file gives only its flags
        return Server(server.name, server.image, (*entry, *words), server.replicas, server.environment)
    return server


def _alike(servers: list[Server]) -> list[Server]:
    """Return the servers with those of the same command as one: Compose files repeat a service for each replica.

    The port, and the devices that a container sees, may differ.
    """
    found: dict[tuple[str, str, tuple[str, ...]], Server] = {}
    for server in servers:
        flags = re.sub(r"--port[ =]\S+", "", " ".join(server.words))
        variables = tuple(each for each in server.environment if "_VISIBLE_DEVICES=" not in each)
        command = (server.image, flags, variables)
        same = found.get(command)
        found[command] = server if same is None else replace(same, replicas=same.replicas + server.replicas)
    return list(found.values())


def _documents(text: str) -> Iterator[Any]:
    """Yield the documents of a YAML file; each is read with its own lines, so that a fault names the right one."""
    lines = text.split("\n")
    starts = [index for index, line in enumerate(lines) if line.rstrip() == "---"]
    for start, end in zip([-1, *starts], [*starts, len(lines)], strict=True):
        yield read_yaml("\n" * (start + 1) + "\n".join(lines[start + 1 : end]))


def _servers(document: Mapping[str, Any]) -> Iterator[Server]:
    for item in _list(document.get("items")):
        if isinstance(item, Mapping):
            yield from _servers(item)
    for name, service in _mapping(document.get("services")).items():
        given = _mapping(service)
        count = given.get("scale", _mapping(given.get("deploy")).get("replicas", 1))
        words = (*_words(given.get("entrypoint")), *_words(given.get("command")))
        yield _server(str(name), given, words, given.get("environment"), count)
    inner, count = _pod(document)
    for container in _list(inner.get("containers")):
        given = _mapping(container)
        words = (*_words(given.get("command")), *_words(given.get("args")))
        yield _server(str(given.get("name", "")), given, words, given.get("env"), count)


def _pod(document: Mapping[str, Any]) -> tuple[Mapping[str, Any], Any]:
    """Return the specification of the pod that starts the server, and its replicas; nothing for other kinds.

    A LeaderWorkerSet starts it in its leader (the workers only join), an InferenceService of KServe in its predictor.
    """
    spec, kind = _mapping(document.get("spec")), document.get("kind")
    if kind == "Pod":
        return spec, 1
    if kind in _WORKLOADS:
        return _mapping(_mapping(spec.get("template")).get("spec")), spec.get("replicas", 1)
    if kind == "LeaderWorkerSet":
        group = _mapping(spec.get("leaderWorkerTemplate"))
        leader = _mapping(group.get("leaderTemplate") or group.get("workerTemplate"))
        return _mapping(leader.get("spec")), spec.get("replicas", 1)
    if kind == "InferenceService":
        predictor = _mapping(spec.get("predictor"))
        return predictor, predictor.get("minReplicas", 1)
    return {}, 1


def _server(
    name: str, given: Mapping[str, Any], words: tuple[str, ...], environment: Any, count: Any
) -> Server:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ConfigError(
            "task.path", f"replicas of {name}: {count!r} is not valid; expected a whole number above 0"
        )
    variables = [
        f"{variable}={'' if value is None else value}" for variable, value in _mapping(environment).items()
    ]
    for each in _list(environment):
        pair = isinstance(each, Mapping)
        variables.append(f"{each.get('name')}={each.get('value') or ''}" if pair else str(each))
    return Server(name, str(given.get("image", "")), words, count, tuple(variables))


def _words(given: Any) -> tuple[str, ...]:
    if isinstance(given, str):
        try:
            return tuple(shlex.split(given, comments=True))
        except ValueError as error:
            raise ConfigError("task.path", f"not a command line: {error}") from None
    return tuple(str(word) for word in _list(given))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
