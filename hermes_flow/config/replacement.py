"""Decides which mappings replace the mapping before them, and which only change some of its keys.

A mapping with keys that the schema knows (a pool, a section of a file) changes the keys that it gives. A mapping with
keys of its own (the settings of a variant, a table of shares or bounds) replaces the one before it: the keys of an
old variant mean nothing to the new one. The types of the schema tell the two apart, so there is no list to maintain.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hermes_flow.config.convert import field_types, number_type
from hermes_flow.config.pools import PoolKinds
from hermes_flow.config.schema import Config

Path = tuple[str, ...]

_NO_GROUPS = ("given", "output", "plugins", "seed")


def type_at(path: Sequence[str], config: Mapping[Any, Any]) -> Any:
    """Return the type that the schema gives the key at ``path``: Any within a variant, None for no such key.

    ``config`` is the configuration so far, which names the kinds of its pools.
    """
    kind, values = Config, config
    for name in path:
        kind = type_below(kind, name, values)
        inner = values.get(name)
        values = inner if isinstance(inner, Mapping) else {}
    return kind


def type_below(kind: Any, name: Any, values: Mapping[Any, Any]) -> Any:
    """Return the type of the key ``name`` in the mapping ``values`` of type ``kind``; None for no such key."""
    if kind is Any:
        return Any
    for member in _members(_resolved(kind, values)):
        if name in _fields(member):
            return _fields(member)[name]
        if typing.get_origin(member) is dict:
            return typing.get_args(member)[1]
    return None


def is_group(path: Sequence[str], kind: Any) -> bool:
    """Return whether ``path`` is an entry of a config group, at the root or as a pool's hardware or model.

    ``kind`` is the type there.
    """
    if len(path) == 1:
        return path[0] in _groups()
    known = {member for name in _groups() for member in _classes(field_types(Config)[name])}
    return any(member in known for member in _classes(kind))


def is_whole(kind: Any) -> bool:
    """Return whether a mapping of this type replaces the earlier one: a table, a variant, or a part of a variant."""
    entries = [typing.get_args(member)[1] for member in _members(kind) if typing.get_origin(member) is dict]
    if kind is Any or not entries:
        return kind is Any
    # A variant has a short form (a name, a number); without one, Any stands for the keys of a kind of stage or cost.
    short = any(number_type(member) in (str, int, float) for member in _members(kind))
    return short if Any in entries else not any(_has_keys(entry) for entry in entries)


def has_key(kind: Any, name: str) -> bool:
    """Return whether the schema knows the key ``name`` of a mapping of this type."""
    return any(name in _fields(member) for member in _members(kind))


def lacks_keys(kind: Any, content: Mapping[Any, Any]) -> bool:
    """Return whether a mapping that may be null has not all the keys that the schema knows."""
    members = _members(kind)
    return type(None) in members and any(
        name not in content
        for member in members
        if dataclasses.is_dataclass(member)
        for name in _fields(member)
    )


def replaced(given: Mapping[Any, Any], before: Mapping[Any, Any]) -> Iterator[Path]:
    """Yield the path of every mapping in ``before`` that a later mapping replaces."""
    yield from _replaced(Config, given, before, ())


def _replaced(kind: Any, given: Mapping[Any, Any], before: Mapping[Any, Any], path: Path) -> Iterator[Path]:
    # A group's file may build on an entry of another kind, as cost/hybrid does on cost/roofline.
    if len(path) > 1 and _is_another_kind(kind, given, before):
        yield path
        return
    for name, value in given.items():
        old, below = before.get(name), type_below(kind, name, {**before, **given})
        if not isinstance(value, Mapping) or not isinstance(old, Mapping) or below is None:
            continue
        if is_whole(below):
            yield (*path, name)
        else:
            yield from _replaced(below, value, old, (*path, name))


def _is_another_kind(kind: Any, given: Mapping[Any, Any], before: Mapping[Any, Any]) -> bool:
    """Tell whether ``given`` is a stage, pool, workload or cost model of another kind than ``before``."""
    if (
        "kind" not in given
        or "kind" not in before
        or (len(_classes(kind)) < 2 and dict[str, Any] not in _members(kind))
    ):
        return False
    return bool(given["kind"] != before["kind"])


@functools.cache
def _groups() -> tuple[str, ...]:
    return tuple(name for name in field_types(Config) if name not in _NO_GROUPS)


def _members(kind: Any) -> tuple[Any, ...]:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return typing.get_args(kind)
    return (kind,)


def _classes(kind: Any) -> list[Any]:
    return [member for member in _members(kind) if dataclasses.is_dataclass(member)]


def _fields(kind: Any) -> dict[str, Any]:
    return field_types(typing.cast(Any, kind)) if dataclasses.is_dataclass(kind) else {}


def _has_keys(kind: Any) -> bool:
    return (
        _registry(kind) is not None
        or any(not getattr(one, "in_tables", False) for one in _classes(kind))
        or any(typing.get_origin(member) is dict for member in _members(kind))
    )


def _has_kinds(kind: Any) -> bool:
    return _registry(kind) is not None or len(_classes(kind)) > 1 or dict[str, Any] in _members(kind)


def _registry(kind: Any) -> PoolKinds | None:
    registry = typing.get_args(kind)[1] if typing.get_origin(kind) is typing.Annotated else None
    return registry if isinstance(registry, PoolKinds) else None


def _resolved(kind: Any, values: Mapping[Any, Any]) -> Any:
    """Return the class of a pool of the kind that ``values`` name; None where they name none that is known."""
    registry = _registry(kind)
    if registry is None:
        return kind
    return registry.known_schema(values.get(registry.tag))
