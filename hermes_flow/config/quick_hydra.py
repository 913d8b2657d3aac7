"""Shortens what Hydra and OmegaConf spend most time on, with the same results.

A value of OmegaConf is an object with a description of its type, and making or copying one through its constructor
takes 20 to 50 µs; a configuration has about 900 of them, and Hydra copies it several times for each job. Here the
objects are made and copied by their attributes. The versions of both libraries are pinned for this in pyproject.toml.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

import yaml  # type: ignore[import-untyped]
from hydra import version
from hydra._internal import defaults_list
from hydra.core import utils
from omegaconf import AnyNode, DictConfig, ListConfig, OmegaConf
from omegaconf._utils import get_omega_conf_dumper
from omegaconf.base import Metadata, Node
from omegaconf.errors import OmegaConfBaseException


@contextmanager
def quick_hydra() -> Iterator[None]:
    """Let Hydra collect choices, compare versions, and copy and save configurations in the short way."""
    replaced: list[tuple[Any, str, Any]] = [
        (defaults_list, "_create_interpolation_map", _known_choices(defaults_list._create_interpolation_map)),
        (version, "_get_version", functools.cache(version._get_version)),
        (DictConfig, "__deepcopy__", _clone_in_place),
        (ListConfig, "__deepcopy__", _clone_in_place),
        (utils, "_save_config", _save),
    ]
    before = [getattr(owner, name) for owner, name, _ in replaced]
    try:
        for owner, name, ours in replaced:
            setattr(owner, name, ours)
        yield
    finally:
        for (owner, name, _), original in zip(replaced, before, strict=True):
            setattr(owner, name, original)


def joined(plain: dict[Any, Any], hydra: DictConfig) -> DictConfig:
    """Return one configuration of our keys, given as plain mappings, and of a copy of the node ``hydra``.

    Raises an error of OmegaConf for a value that a configuration cannot hold.
    """
    config: DictConfig = clone(hydra)
    content = config.__dict__["_content"]
    for name, value in plain.items():
        content[name] = _node(value, name, config)
    return config


def clone(node: Any, parent: Any = None) -> Any:
    """Return a deep copy of a node of OmegaConf, below ``parent``."""
    copied = object.__new__(type(node))
    state = copied.__dict__
    state.update(node.__dict__)
    state["_metadata"] = _metadata(state["_metadata"])
    state["_parent"] = parent
    state["_flags_cache"] = None
    content = state.get("_content")
    if content is None:
        return copied
    if isinstance(content, dict):
        state["_content"] = {name: clone(below, copied) for name, below in content.items()}
    elif isinstance(content, list):
        state["_content"] = [clone(below, copied) for below in content]
    elif isinstance(content, Node):
        state["_content"] = clone(content, copied)
    return copied


def to_plain(config: Any, resolve: bool = False, enum_to_str: bool = False) -> Any:
    """Return the plain mappings, lists and values that ``OmegaConf.to_container`` returns, in a tenth of the time.

    Raises the errors of that function for a reference that cannot be resolved.
    """
    try:
        return _plain(config, resolve, enum_to_str)
    except OmegaConfBaseException:
        return OmegaConf.to_container(config, resolve=resolve, enum_to_str=enum_to_str)  # it names the key


def _plain(node: Any, resolve: bool, enum_to_str: bool) -> Any:
    if resolve:
        written = node.__dict__.get("_val", node.__dict__.get("_content"))
        if type(written) is str and "${" in written:
            node = node._dereference_node()
    state = node.__dict__
    content = state.get("_content")
    if isinstance(content, dict):
        found = {name: _plain(below, resolve, enum_to_str) for name, below in content.items()}
        if enum_to_str:
            return {name.name if isinstance(name, Enum) else name: value for name, value in found.items()}
        return found
    if isinstance(content, list):
        return [_plain(below, resolve, enum_to_str) for below in content]
    value = state["_val"] if "_val" in state else node._value()
    return value.name if enum_to_str and isinstance(value, Enum) else value


def _clone_in_place(node: Any, memo: dict[int, Any]) -> Any:
    """Return a deep copy that keeps its parent, as OmegaConf's own does."""
    return clone(node, node.__dict__["_parent"])


def _metadata(metadata: Metadata) -> Metadata:
    copied = object.__new__(type(metadata))
    state = copied.__dict__
    state.update(metadata.__dict__)
    flags, cached = state["flags"], state["resolver_cache"]
    state["flags"] = None if flags is None else dict(flags)
    state["resolver_cache"] = defaultdict(dict, {name: dict(values) for name, values in cached.items()})
    return copied


@functools.cache
def _examples() -> dict[type[Any], Node]:
    """Return a node of OmegaConf for each kind of plain value."""
    made = OmegaConf.create({"mapping": {}, "list": [], "value": None})
    nodes = (made._get_node(name) for name in ("mapping", "list", "value"))
    return dict(zip((dict, list, type(None)), nodes, strict=True))  # type: ignore[arg-type]


_NAMES = (
    str,
    int,
    float,
    bool,
)  # the types that a name in a mapping mostly has; OmegaConf refuses some others


def _node(value: Any, key: Any, parent: Any) -> Any:
    """Return a plain value as OmegaConf's constructors would make it."""
    kind = type(value)
    if kind in (int, float, bool, str, type(None)):
        if kind is str and "${" in value:
            return _named(clone(_reference(value), parent), key)
        return _value_node(value, key, parent)
    if kind is dict and all(type(name) in _NAMES for name in value):
        node = _empty(dict, key, parent)
        node.__dict__["_content"] = {name: _node(below, name, node) for name, below in value.items()}
        return node
    if kind is list:
        node = _empty(list, key, parent)
        node.__dict__["_content"] = [_node(below, index, node) for index, below in enumerate(value)]
        return node
    return _made(value, key, parent)


def _value_node(value: Any, key: Any, parent: Any) -> Any:
    """Return a copy of the node of null with another value; most nodes are made here."""
    node, metadata = object.__new__(AnyNode), object.__new__(Metadata)
    described = metadata.__dict__
    described.update(_of_null())
    described["key"], described["flags"], described["resolver_cache"] = key, {}, defaultdict(dict)
    state = node.__dict__
    state["_metadata"], state["_parent"], state["_flags_cache"], state["_val"] = metadata, parent, None, value
    return node


@functools.cache
def _of_null() -> dict[str, Any]:
    return dict(_examples()[type(None)].__dict__["_metadata"].__dict__)


@functools.cache
def _reference(text: str) -> Node:
    """Return a node of OmegaConf for a text that refers to other keys, whose grammar it has checked."""
    made: Node = OmegaConf.create({"key": text})._get_node("key")  # type: ignore[assignment]
    return made


def _made(value: Any, key: Any, parent: Any) -> Any:
    node: Any = OmegaConf.create({key: value})._get_node(key)
    node.__dict__["_parent"] = parent
    return node


def _empty(kind: type[Any], key: Any, parent: Any) -> Any:
    return _named(clone(_examples()[kind], parent), key)


def _named(node: Any, key: Any) -> Any:
    node.__dict__["_metadata"].key = key
    return node


def _known_choices(as_hydra_does: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    """Return a function that collects the choices only where a defaults list refers to one."""

    def known_choices(overrides: Any, entries: list[Any], self_added: bool) -> DictConfig:
        if any(not entry.is_self() and entry.is_interpolation() for entry in entries):
            return as_hydra_does(overrides, entries, self_added)
        return OmegaConf.create()

    return known_choices


def _save(config: Any, filename: str, folder: Any) -> None:
    """Write a file of ``.hydra/`` through libyaml, where PyYAML has it."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = to_plain(config, enum_to_str=True)
    text = yaml.dump(plain, default_flow_style=False, allow_unicode=True, sort_keys=False, Dumper=_dumper())
    (folder / filename).write_text(text, encoding="utf-8")


@functools.cache
def _dumper() -> Any:
    """Return OmegaConf's writer of YAML on top of libyaml."""
    plain = get_omega_conf_dumper()
    fast = getattr(yaml, "CDumper", None)
    if fast is None:
        return plain
    dumper: Any = type("Dumper", (fast,), {})
    dumper.add_representer(str, plain.str_representer)
    return dumper
