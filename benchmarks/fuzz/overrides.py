"""Draws the overrides of one command: choices of all groups, values of all keys, and texts that are no overrides."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from typing import Any

from hermes_flow.config.folders import config_folder

GROUPS = (
    "pipeline",
    "cluster",
    "model",
    "hardware",
    "engine",
    "workload",
    "slo",
    "cost",
    "network",
    "prices",
)
HOSTILE = (
    *("null", "0", "-1", "1", "0.5", "1e300", "1e-300", "1e12", "-1e9", "inf", "-inf", "nan"),
    *("9223372036854775807", "1" + "0" * 400, "true", "x", "[]", "{}", "''"),
)
TEXTS = (
    *(
        "'a b'",
        '"q"',
        "${hardware}",
        "${nothing}",
        "???",
        "[1,2,3]",
        "{a:1}",
        "{kind:x}",
        "{policy:least_kv}",
    ),
    *("{distribution:uniform,min:1,max:9}", "{distribution:lognormal,mean:1e300,cv:1}"),
    *("{distribution:fixed,value:0}", "1_000", "0x10", "é", "\\\\", "../x"),
)
BROKEN = (
    *("=", "a=", "=b", "a==b", "+", "~", "++x=1", "~cluster", "a.b.c", "--", "-x", "task=nothing", "slo="),
    "seed=,",
)


def command(rng: random.Random) -> list[str]:
    """Return the overrides of one case: a small base, and one to four changes."""
    base = ["workload.requests=12"]
    for group in rng.sample(GROUPS, rng.choice((0, 1, 1, 2, 3))):
        base.insert(0, f"{group}={rng.choice(entries(group))}")
    if any(each.startswith("workload=sessions") for each in base):
        base[-1] = "workload.sessions=4"
    if any(each.startswith("workload=trace") for each in base):
        base.pop()
    keys = keys_of(tuple(each for each in base if each.startswith("pipeline=")))
    changes = [_change(rng, keys) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    if rng.random() < 0.1:
        changes.append(rng.choice(BROKEN))
    return [*base, *changes]


@functools.cache
def entries(group: str) -> list[str]:
    """Return the names of a group's built-in entries."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


@functools.cache
def keys_of(overrides: tuple[str, ...]) -> list[tuple[str, Any]]:
    """Return all keys of a configuration with their values."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from hermes_flow.config.compose import composing

    with (
        composing(),
        initialize_config_dir(version_base="1.3", config_dir=str(config_folder()), job_name="fuzz"),
    ):
        plain = OmegaConf.to_container(compose("config", overrides=list(overrides)), resolve=False)
    return [(key, value) for key, value in _leaves(plain, "") if not key.startswith("hydra")]


def _leaves(node: Any, above: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for name, value in node.items():
            yield from _leaves(value, f"{above}.{name}" if above else str(name))
    else:
        yield above, node


def _change(rng: random.Random, keys: list[tuple[str, Any]]) -> str:
    key, value = rng.choice(keys)
    if rng.random() < 0.05:
        key = key[:-1] if rng.random() < 0.5 else f"{key}.more"
    sign = rng.choice(("", "", "", "", "", "+", "++", "~"))
    if sign == "~":
        return f"~{key}"
    near = rng.random()
    if near < 0.5 and isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{sign}{key}={_near(rng, value)}"
    return f"{sign}{key}={rng.choice(HOSTILE if near < 0.85 else TEXTS)}"


def _near(rng: random.Random, value: float) -> str:
    factor = rng.choice((0.1, 0.5, 2, 3, 10, 100))
    return str(max(1, round(value * factor))) if isinstance(value, int) else f"{value * factor:g}"
