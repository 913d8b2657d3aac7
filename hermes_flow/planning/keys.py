"""Reads and replaces one value of a Config by its dotted key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from hermes_flow.errors import ConfigError, did_you_mean

T = TypeVar("T")


def value_at(thing: Any, key: str) -> Any:
    """Return the value at ``key``, as in ``cluster.pools.llm.count``; raises ConfigError where there is none."""
    node = thing
    for place, name in enumerate(key.split(".")):
        names = _names(node)
        if name not in names:
            parts = key.split(".")
            known = ".".join(parts[: place + 1])
            if place + 1 == len(parts):
                names = [each for each in names if _is_number(_inner(node, each))] or names
            raise ConfigError("task.over", f"there is no key {known!r}{did_you_mean(name, names)}")
        node = _inner(node, name)
    return node


def with_value(thing: T, key: str, value: Any) -> T:
    """Return ``thing`` with ``value`` at ``key``; everything else is shared with the original."""
    name, _, below = key.partition(".")
    inner = _inner(thing, name)
    changed = with_value(inner, below, value) if below else value
    if isinstance(thing, Mapping):
        return {**thing, name: changed}  # type: ignore[return-value]
    return dataclasses.replace(thing, **{name: changed})  # type: ignore[type-var]


def number_at(thing: Any, key: str) -> int | float:
    """Return the number above 0 at ``key``; raises ConfigError where something else is there."""
    value = value_at(thing, key)
    within = [name for name in _names(value) if _is_number(_inner(value, name))]
    if _names(value):
        raise ConfigError(
            "task.over",
            f"{key} is a group of keys; expected a key with a number above 0{_listed(key, within)}",
        )
    if not _is_number(value):
        shown = "null" if value is None else repr(value)
        raise ConfigError(
            "task.over",
            f"{key} is {shown}; expected a key with a number above 0, from which the search begins",
        )
    number: int | float = value
    return number


def _listed(key: str, within: list[str]) -> str:
    return f", as {' or '.join(f'{key}.{name}' for name in within[:2])}" if within else ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def _inner(node: Any, name: str) -> Any:
    return node[name] if isinstance(node, Mapping) else getattr(node, name)


def _names(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        return [str(name) for name in node]
    if dataclasses.is_dataclass(node):
        return [field.name for field in dataclasses.fields(node)]
    return []
