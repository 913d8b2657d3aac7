"""Writes the tables of docs/configuration.md: every key with its values, unit, default and meaning.

Run it with ``python -m benchmarks.configuration_page``. The tables come from the dataclasses that check a
configuration and from the registries of variants, so a key cannot be missing. The text above the marker is written by
hand.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import pkgutil
import re
import textwrap
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hermes_flow
from hermes_flow.config.convert import INTERNAL, field_types, number_type
from hermes_flow.config.folders import config_folder
from hermes_flow.config.pools import PoolKinds
from hermes_flow.config.quantities import Range
from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Config
from hermes_flow.scaling.settings import ScalingLimits
from hermes_flow.stages.graph import StageOptions

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"
MARKER = "<!-- All below is written by python -m benchmarks.configuration_page. -->"

_WORDS = {str: "text", int: "whole number", float: "number", bool: "`true`, `false`", type(None): "`null`"}
_UNITS = {
    "_usd_per_million_input_tokens": "USD per million tokens",
    "_gb_s": "GB/s",
    "_gb": "GB",
    "_mb": "MB",
    "_ms": "ms",
    "_us": "µs",
    "_ns": "ns",
    "_per_s": "per second",
    "_s": "s",
    "_w": "W",
    "_gflops": "10⁹ operations per second",
    "_b": "billions",
    "_tokens": "tokens",
    "usd_per_hour": "USD per hour",
}  # fmt: skip
_SENTENCE = re.compile(r"(?<=\.)\s+(?=[A-Z`(])")


def page(prose: str) -> str:
    """Return the whole page: ``prose``, which is written by hand, and the tables."""
    return f"{prose.rstrip()}\n\n{MARKER}\n\n{tables().rstrip()}\n"


def prose_of(text: str) -> str:
    """Return the part of the page that is written by hand."""
    return text.partition(MARKER)[0]


def tables() -> str:
    """Return a section for every group, kind of pool and registry of variants."""
    sections = [*_entries(), "## All keys", _INTRODUCTION, *_no_group()]
    for name, kind in field_types(Config).items():
        for member in _classes(kind):
            if name not in ("output", "given"):
                several = f" of kind `{_kind(member)}`" if len(_classes(kind)) > 1 else ""
                sections += _section(f"`{name}`{several}", member)
    sections += _section("`output`", _classes(field_types(Config)["output"])[0])
    sections += _section("Keys of every stage", StageOptions)
    sections += _section("Keys of `cluster.pools.NAME.autoscale`, besides those of its policy", ScalingLimits)
    for registry in _registries():
        sections += _variants(registry)
    return "\n\n".join(sections)


_INTRODUCTION = """Units are in the names of the keys. GB is 10⁹ bytes. The default is that of a file that leaves
the key out; keys that are *required* have none. The built-in files set most keys, and `hermes-flow --cfg job` prints
the values of a run. `NAME` stands for a name of your choice."""


def _entries() -> list[str]:
    """Return the names of the built-in entries of every group."""
    lines = ["| group | built-in entries |", "|---|---|"]
    for folder in sorted(config_folder().iterdir()):
        names = sorted(path.stem for path in folder.glob("*.yaml"))
        if names:
            lines.append(f"| `{folder.name}` | {', '.join(f'`{name}`' for name in names)} |")
    return ["## Entries", "\n".join(lines)]


def _no_group() -> list[str]:
    rows = [row for row in _rows(Config, "") if row[0] in ("seed", "plugins")]
    return ["### Keys of no group", _table(rows)]


def _section(title: str, cls: type[Any]) -> list[str]:
    rows = list(_rows(cls, ""))
    return [part for part in (f"### {title}", _summary(cls), _table(rows) if rows else "") if part]


def _table(rows: list[tuple[str, str, str, str, str]]) -> str:
    lines = ["| key | values | unit | default | meaning |", "|---|---|---|---|---|"]
    lines += [f"| `{key}` | {' | '.join(cells)} |" for key, *cells in rows]
    return "\n".join(lines)


def _variants(registry: Registry[Any]) -> list[str]:
    """Return the section of a registry: one table for every variant that has keys."""
    noun = registry.noun[0].upper() + registry.noun[1:]
    sections = [f"## {noun}: `{registry.tag}`"]
    for name in registry.names:
        cls = registry.find(name, registry.tag)
        cls = cls.schema if isinstance(registry, PoolKinds) else cls
        if dataclasses.is_dataclass(cls):
            sections += _section(f"`{registry.tag}: {name}`", cls)
        else:
            sections += [f"### `{registry.tag}: {name}`", _markdown(_docstring(cls))]
    return sections


def _rows(cls: type[Any], prefix: str) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield key, values, unit, default and meaning of every key of ``cls`` and of the mappings within it."""
    hints = field_types(cls)
    for field in dataclasses.fields(cls):
        if (
            not field.init
            or field.metadata == INTERNAL
            or (field.name == "kind" and len(_literals(hints["kind"])) == 1)
        ):
            continue
        key, kind = f"{prefix}{field.name}", hints[field.name]
        named = typing.get_args(kind)[1] if typing.get_origin(kind) is dict else None
        inner = [] if _is_entry(kind) or _is_entry(named) else [*_classes(kind), *_classes(named)]
        yield key, _values(kind), _unit(field.name, kind), _default(field), _meaning(cls, field.name)
        for member in inner:
            yield from _rows(member, f"{key}.NAME." if named is not None else f"{key}.")


def _is_entry(kind: Any) -> bool:
    """Tell whether a group has a section of its own."""
    entries = {member for hint in field_types(Config).values() for member in _classes(hint)}
    return any(member in entries for member in _classes(kind))


def _values(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return ", ".join(dict.fromkeys(_values(member) for member in typing.get_args(kind)))
    if origin is typing.Literal:
        return ", ".join(f"`{option}`" for option in typing.get_args(kind))
    if origin is typing.Annotated:
        inner, note = typing.get_args(kind)
        return f"{_values(inner)} {note.text}" if isinstance(note, Range) else _values(inner)
    if origin is tuple:
        return f"list of {_values(typing.get_args(kind)[0])}"
    if origin is dict:
        inner = typing.get_args(kind)[1]
        return "mapping" if inner is Any else f"mapping to {_values(inner)}"
    return _WORDS.get(kind, "mapping")


def _unit(name: str, kind: Any) -> str:
    if (
        not {int, float} & {number_type(member) for member in _flat(kind)}
        and typing.get_origin(kind) is not dict
    ):
        return ""
    return next((unit for suffix, unit in _UNITS.items() if f"_{name}".endswith(suffix)), "")


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "*required*"
    if dataclasses.is_dataclass(value):
        return ""
    words = {None: "null", True: "true", False: "false"}
    text = (
        words[value]
        if value is None or isinstance(value, bool)
        else str(list(value) if isinstance(value, tuple) else value)
    )
    return f"`{text}`" if text else '`""`'


def _meaning(cls: type[Any], name: str) -> str:
    """Return the text under the field, else the sentences of the class that name it."""
    below = _texts_below(cls).get(name)
    if below:
        return _markdown(" ".join(below.split()))
    named = [part for part in _sentences(cls) if f"``{name}``" in part]
    return _markdown(" ".join(named))


def keys_without_meaning() -> list[str]:
    """Return the keys, each with its class, whose meaning is written nowhere."""
    classes = [member for kind in field_types(Config).values() for member in _classes(kind)]
    classes += [Config, StageOptions]
    for registry in _registries():
        found = [registry.find(name, registry.tag) for name in registry.names]
        classes += [cls.schema if isinstance(registry, PoolKinds) else cls for cls in found]
    return [
        f"{cls.__name__}.{key}"
        for cls in classes
        if dataclasses.is_dataclass(cls)
        for key, _, _, _, meaning in _rows(cls, "")
        if not meaning
    ]


@functools.cache
def _texts_below(cls: type[Any]) -> dict[str, str]:
    """Return the texts that stand below fields in the source of a class and of those it builds on."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if not base.__module__.startswith("hermes_flow"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for node, after in zip(tree.body, tree.body[1:], strict=False):
            text = after.value if isinstance(after, ast.Expr) else None
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(text, ast.Constant)
                and isinstance(text.value, str)
            ):
                assert isinstance(node.target, ast.Name)
                found[node.target.id] = inspect.cleandoc(text.value)
    return found


def _docstring(cls: type[Any]) -> str:
    return " ".join(inspect.cleandoc(cls.__doc__ or "").split())


def _summary(cls: type[Any]) -> str:
    """Return the sentences about a class that its table does not repeat."""
    others = [field.name for field in dataclasses.fields(cls) if field.name not in _texts_below(cls)]
    left = [part for part in _sentences(cls) if not any(f"``{name}``" in part for name in others)]
    return _markdown(" ".join(left))


def _sentences(cls: type[Any]) -> list[str]:
    return _SENTENCE.split(_docstring(cls))


def _markdown(text: str) -> str:
    return text.replace("``", "`").replace("|", "\\|")


def _classes(kind: Any) -> list[Any]:
    """Return the dataclasses that a type is made of."""
    return [member for member in _flat(kind) if dataclasses.is_dataclass(member)]


def _flat(kind: Any) -> list[Any]:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        return [inner for member in typing.get_args(kind) for inner in _flat(member)]
    return [kind]


def _literals(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()


def _kind(cls: type[Any]) -> str:
    return str(_literals(field_types(cls)["kind"])[0])


@functools.cache
def _registries() -> tuple[Registry[Any], ...]:
    """Return every registry of the package, in the order of their nouns."""
    found: dict[int, Registry[Any]] = {}
    for module in pkgutil.walk_packages(hermes_flow.__path__, "hermes_flow."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, Registry):
                found[id(value)] = value
    return tuple(sorted(found.values(), key=lambda registry: registry.noun))


if __name__ == "__main__":
    PAGE.write_text(page(prose_of(PAGE.read_text(encoding="utf-8"))), encoding="utf-8")
