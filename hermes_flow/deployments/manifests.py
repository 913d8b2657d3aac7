"""Servers as deployment files: shell commands, Docker Compose, Kubernetes Deployment and Service."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from hermes_flow.deployments.servers import Server

# The images that the engines' makers publish; task.image names another.
IMAGES = {
    "vllm": "vllm/vllm-openai:latest",
    "sglang": "lmsysorg/sglang:latest",
    "trtllm": "nvcr.io/nvidia/tensorrt-llm/release:1.0.0",
}
_OPTIONS = "/etc/hermes-flow"  # where containers find their file of options
_HEALTH = "/health"


def shell_text(servers: Sequence[Server]) -> str:
    """Return the command line of each pool's server, with comments on what it leaves out."""
    parts = ["#!/bin/sh"]
    for server in servers:
        parts.append(
            f"# Pool {server.pool}: {server.count} × this, each on {server.devices} × {server.hardware}."
        )
        parts += [f"# Not said by flags: {what}" for what in server.left_out]
        if server.options:
            parts.append(f"cat > {_options_file(server)} <<'YAML'\n{_options_text(server)}YAML")
        parts.append(_broken(server.command))
    return "\n".join(parts) + "\n"


def compose_text(servers: Sequence[Server], image: str | None = None) -> str:
    """Return a Docker Compose file with a service for each server, on ports from 8000 on."""
    services: dict[str, Any] = {}
    port = 8000
    for server in servers:
        for number in range(server.count):
            name = _name(server) if server.count == 1 else f"{_name(server)}-{number}"
            services[name] = {
                "image": image or IMAGES[server.engine],
                **_program(server, "entrypoint", "command"),
                "ports": [f"{port}:{server.port}"],
                "ipc": "host",
                "volumes": ["huggingface:/root/.cache/huggingface"],
                "environment": ["HF_TOKEN"],
                "deploy": {
                    "resources": {
                        "reservations": {
                            "devices": [
                                {"driver": "nvidia", "count": server.devices, "capabilities": ["gpu"]}
                            ]
                        }
                    }
                },
            }
            if server.options:
                target = f"{_OPTIONS}/{_options_file(server)}"
                services[name]["configs"] = [{"source": _name(server), "target": target}]
            port += 1
    document: dict[str, Any] = {"services": services, "volumes": {"huggingface": {}}}
    options = {_name(server): {"content": _options_text(server)} for server in servers if server.options}
    if options:
        document["configs"] = options
    return _comments(servers) + _yaml([document])


def kubernetes_text(servers: Sequence[Server], image: str | None = None) -> str:
    """Return a Deployment and a Service for each pool."""
    documents: list[dict[str, Any]] = []
    for server in servers:
        if server.options:
            documents.append(_config_map(server))
        documents += [_deployment(server, image or IMAGES[server.engine]), _service(server)]
    return _comments(servers) + _yaml(documents)


def _deployment(server: Server, image: str) -> dict[str, Any]:
    labels = {"app": _name(server)}
    probe = {"path": _HEALTH, "port": server.port}
    container: dict[str, Any] = {
        "name": server.engine,
        "image": image,
        **_program(server, "command", "args"),
        "env": [
            {
                "name": "HF_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "hf-token", "key": "token", "optional": True}},
            }
        ],
        "ports": [{"containerPort": server.port}],
        "resources": {"limits": {server.resource: str(server.devices)}},
        "readinessProbe": {"httpGet": dict(probe), "periodSeconds": 10},
        "startupProbe": {"httpGet": dict(probe), "periodSeconds": 10, "failureThreshold": 180},
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm"}],
    }
    volumes: list[dict[str, Any]] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    if server.options:
        container["volumeMounts"] = [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "options", "mountPath": _OPTIONS},
        ]
        volumes.append({"name": "options", "configMap": {"name": _name(server)}})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _name(server), "labels": dict(labels)},
        "spec": {
            "replicas": server.count,
            "selector": {"matchLabels": dict(labels)},
            "template": {
                "metadata": {"labels": dict(labels)},
                "spec": {
                    "containers": [container],
                    "volumes": volumes,
                },
            },
        },
    }


def _config_map(server: Server) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": _name(server)},
        "data": {_options_file(server): _options_text(server)},
    }


def _service(server: Server) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _name(server)},
        "spec": {
            "selector": {"app": _name(server)},
            "ports": [{"name": "http", "port": 80, "targetPort": server.port}],
        },
    }


def _program(server: Server, program: str, arguments: str) -> dict[str, list[str]]:
    """Return the program and its arguments under the names that a file has for them."""
    words = [
        f"{_OPTIONS}/{word}" if server.options and word == _options_file(server) else word
        for word in server.command
    ]
    length = {"sglang": 3, "trtllm": 1}.get(server.engine, 2)
    address = ["--host", "0.0.0.0", "--port", str(server.port)]
    return {program: words[:length], arguments: [*words[length:], *address]}


def _name(server: Server) -> str:
    return f"{server.engine}-{server.pool}".replace("_", "-").lower()


def _options_file(server: Server) -> str:
    return f"{_name(server)}.yaml"


def _options_text(server: Server) -> str:
    return _yaml([dict(server.options)])


def _comments(servers: Sequence[Server]) -> str:
    lines = [
        f"# {_name(server)}: {server.count} × {server.devices} × {server.hardware}, {server.model}"
        for server in servers
    ]
    lines += [f"# Not said by flags of {_name(each)}: {what}" for each in servers for what in each.left_out]
    return "\n".join(lines) + "\n"


def _yaml(documents: Sequence[dict[str, Any]]) -> str:
    import yaml  # type: ignore[import-untyped]

    return str(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=110))


def _broken(words: Sequence[str]) -> str:
    """Return a command line with a flag a line."""
    lines: list[list[str]] = [[]]
    for word in words:
        if word.startswith("--") and lines[-1]:
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)
