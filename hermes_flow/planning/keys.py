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
            known = ".".join(key.split(".")[: place + 1])
            raise ConfigError("task.over", f"there is no key {known!r}{did_you_mean(name, names)}")
        node = node[name] if isinstance(node, Mapping) else getattr(node, name)
    return node


def with_value(thing: T, key: str, value: Any) -> T:
    """Return ``thing`` with ``value`` at ``key``; everything else is shared with the original."""
    name, _, below = key.partition(".")
    inner = thing[name] if isinstance(thing, Mapping) else getattr(thing, name)
    changed = with_value(inner, below, value) if below else value
    if isinstance(thing, Mapping):
        return {**thing, name: changed}  # type: ignore[return-value]
    return dataclasses.replace(thing, **{name: changed})  # type: ignore[type-var]


def number_at(thing: Any, key: str) -> int | float:
    """Return the number above 0 at ``key``; raises ConfigError where something else is there."""
    value = value_at(thing, key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        shown = "null" if value is None else repr(value)
        raise ConfigError(
            "task.over",
            f"{key} is {shown}; expected a key with a number above 0, from which the search begins",
        )
    return value


def _names(node: Any) -> list[str]:
    if isinstance(node, Mapping):
        return [str(name) for name in node]
    if dataclasses.is_dataclass(node):
        return [field.name for field in dataclasses.fields(node)]
    return []
