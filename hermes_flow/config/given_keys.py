"""Finds the keys that a user gave, and makes the same configuration with another value for one of them.

The compiler compares the programs of both (compiler/unused_keys.py). What the user gave is kept as plain mappings,
from which the configuration with the other value is made in the same way as the first one was.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hermes_flow.config.convert import convert
from hermes_flow.config.open_choices import fill_open_choices, left_open, with_origins
from hermes_flow.config.origin import Origins
from hermes_flow.config.overheads import takes_overheads
from hermes_flow.config.replacement import type_at
from hermes_flow.config.schema import Config
from hermes_flow.program.quick_dataclass import dataclass

Path = tuple[str, ...]

CHOSEN = ("model", "hardware", "engine")  # groups whose choice at the root is that of pools that make none
_NOT_OURS = ("hydra", "experiment")
# Verbs use these; no program depends on them.
_NOT_COMPILED = ("defaults", "experiment", "given", "hydra", "output", "plugins", "sweep", "task")
_COUNTS = {"synthetic": "requests", "sessions": "sessions", "trace": "limit"}
_MOST_LEAVES = 8
# Counts that are divided among devices show what they do only where there are enough for each; larger ones make
# tables that take long
_SHARED_AMONG, _MOST_SHARED = (16, 64), 1024
_LINK = re.compile(r"\$\{([\w.]+)\}")


@dataclass(frozen=True, slots=True)
class Given:
    """A configuration as plain mappings, and the keys that overrides gave.

    ``keys`` have values, ``choices`` name an entry of a group of ``CHOSEN``. ``links`` are the places that took the
    value of another key, as ``${hardware}`` does, each with the path of that key. ``origins`` are the user's files.
    """

    plain: Mapping[str, Any]
    keys: tuple[str, ...]
    choices: tuple[str, ...]
    links: Mapping[Path, Path]
    origins: Origins | None = None

    def pools(self, group: str, own: bool) -> list[str]:
        """Return the pools with an ``own`` value of a key such as model, or those that take the value at the root."""
        pools = self.plain["cluster"]["pools"]
        return [
            name
            for name, pool in pools.items()
            if own != self._follows(name, pool, group) and (pool.get(group) is not None or not own)
        ]

    def _follows(self, name: str, pool: Mapping[str, Any], group: str) -> bool:
        groups = left_open(pool.get("kind"))
        if group == "engine" and group not in groups:  # an encoder, whose GPU takes the engine's overheads
            return takes_overheads(pool.get("hardware"))
        linked = self.links.get(("cluster", "pools", name, group)) == (group,)
        return linked or (group in groups and "name" not in (pool.get(group) or {}))

    def smaller(self, most: int) -> Given:
        """Return the same configuration with at most ``most`` requests or sessions."""
        workload = self.plain["workload"]
        name = _COUNTS.get(workload["kind"])
        count = workload.get(name)
        if name is None or (isinstance(count, int) and count <= most):
            return self
        return replace(self, plain=_with(self.plain, ("workload", name), most))

    def config(self) -> Config:
        """Return the configuration; raises ConfigError as composing it would."""
        return converted(self.plain)

    def others(self, key: str) -> Iterator[Given]:
        """Yield configurations with another value for ``key``; none if no other valid value is known."""
        path = tuple(key.split("."))
        leaves = list(_leaves(path, _at(self.plain, path)))
        for place, value in leaves[:_MOST_LEAVES]:
            for other in _other_values(value, type_at(place, self.plain)):
                plain = _with(self.plain, place, other)
                for taker, taken in self.links.items():
                    if place[: len(taken)] == taken:
                        plain = _with(plain, (*taker, *place[len(taken) :]), other)
                yield replace(self, plain=plain)

    def place(self, key: str) -> str:
        """Return the user's file and line that gave ``key``, in brackets; nothing where an override did."""
        return "" if self.origins is None else self.origins.place_of(key)

    def value(self, key: str) -> Any:
        """Return the value of ``key``."""
        return _at(self.plain, key.split("."))

    def varies(self, key: str) -> bool:
        """Return whether ``others`` covers everything that ``key`` gives."""
        path = tuple(key.split("."))
        return 0 < len(list(_leaves(path, _at(self.plain, path)))) <= _MOST_LEAVES


def given_keys(
    plain: Mapping[str, Any], raw: Any, overrides: Sequence[str], origins: Origins | None = None
) -> Given | None:
    """Return the keys that ``overrides`` gave; None if the program can depend on none of them.

    ``plain`` has its interpolations resolved, ``raw`` has not.
    """
    keys: dict[str, None] = {}
    choices = []
    for text in overrides:
        name, _, value = text.partition("=")
        key = name.lstrip("+")
        root = key.split(".")[0]
        if name.startswith("~") or root in _NOT_COMPILED or "@" in key or "/" in key:
            continue
        if "." in key or root == "seed" or (root not in CHOSEN and value.startswith("{")):
            keys |= dict.fromkeys(_given_below(key, value, plain))
        elif root in CHOSEN and not value.startswith("{"):
            choices.append(root)
    if not keys and not choices:
        return None
    return Given(plain, tuple(keys), tuple(choices), dict(_links(raw, ())), origins)


def _given_below(key: str, text: str, plain: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys that the value ``text`` gives: those within a mapping, at any depth, or else ``key`` itself."""
    given = _mapping(text) if text.startswith("{") else None
    inner = [path for path, _ in _leaves(tuple(key.split(".")), given)] if given else []
    if inner and all(
        isinstance(name, (str, int)) and "." not in str(name) for path in inner for name in path
    ):
        yield from (".".join(map(str, path)) for path in inner if _at(plain, path) is not None)
    else:
        yield key


def _mapping(text: str) -> Mapping[str, Any] | None:
    """Return the mapping of an override; None where it has a function of Hydra, which no single job has."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return None
    return value if isinstance(value, dict) else None


def converted(plain: Mapping[str, Any]) -> Config:
    """Return plain mappings as a Config, with the choices that pools leave open filled; raises ConfigError."""
    filled = dict(plain)
    cluster = plain.get("cluster")
    pools = cluster.get("pools") if isinstance(cluster, Mapping) else None
    if isinstance(cluster, Mapping) and isinstance(pools, Mapping):
        copies = {name: dict(pool) if isinstance(pool, Mapping) else pool for name, pool in pools.items()}
        filled["cluster"] = {**cluster, "pools": copies}
    taken = fill_open_choices(filled)
    # What others refer to comes first, so that a mistake is named where it is.
    ours = sorted(
        (key for key in filled if key not in ("hydra", "experiment")),
        key=lambda key: key not in ("seed", *CHOSEN),
    )
    return with_origins(convert(Config, {key: filled[key] for key in ours}, ""), taken)


def _at(config: Any, path: Sequence[str]) -> Any:
    for name in path:
        if not isinstance(config, Mapping):
            return None
        config = config.get(_own_name(config, name))
    return config


def _own_name(config: Any, name: Any) -> Any:
    """Return ``name`` as it stands in ``config``, where it may be a number."""
    if isinstance(config, Mapping) and name not in config and isinstance(name, str) and name.isdecimal():
        return int(name)
    return name


def _with(config: Any, path: Sequence[str], value: Any) -> Any:
    """Return ``config`` with ``value`` at ``path``; what is not on the way there is shared."""
    if not path:
        return value
    name = _own_name(config, path[0])
    below = config.get(name) if isinstance(config, Mapping) else None
    return {**(config if isinstance(config, Mapping) else {}), name: _with(below, path[1:], value)}


def _leaves(path: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, Mapping):
        for name, entry in value.items():
            yield from _leaves((*path, name), entry)
    else:
        yield path, value


def _links(raw: Any, path: Path) -> Iterator[tuple[Path, Path]]:
    if isinstance(raw, Mapping):
        for name, value in raw.items():
            yield from _links(value, (*path, name))
    elif isinstance(raw, str) and "${" in raw:
        match = _LINK.fullmatch(raw)
        if match is not None:
            yield path, tuple(match[1].split("."))


def _other_values(value: Any, kind: Any) -> list[Any]:
    """Return values that differ from ``value``, of which one at least is likely to be valid."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        counts = [value * 2, value // 2, value + 1, 1, 0]
        counts += [value * among for among in _SHARED_AMONG if value <= _MOST_SHARED]
        return [other for other in dict.fromkeys(counts) if other != value]
    if isinstance(value, float):
        numbers = [value * 2, value / 2, 1.0, 0.5, 0.0]
        return [other for other in dict.fromkeys(numbers) if other != value]
    if not isinstance(value, str):
        return []
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)
    literals = [entry for entry in kinds if typing.get_origin(entry) is typing.Literal]
    words = [option for literal in literals for option in typing.get_args(literal) if option != value]
    # Where a key takes a mapping as well, its texts are names of policies
    free = str in kinds and not any(typing.get_origin(entry) is dict for entry in kinds)
    return [*words, f"{value} (other)"] if free else words
