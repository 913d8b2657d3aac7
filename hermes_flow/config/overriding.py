"""Applies overrides of keys to a composed configuration.

A mapping that an override gives replaces the one before it where the rule of ``replacement.py`` says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from omegaconf import AnyNode, DictConfig, OmegaConf

from hermes_flow.config.replacement import (
    Path,
    has_key,
    is_group,
    is_whole,
    lacks_keys,
    replaced,
    type_at,
    type_below,
)

NAME = "custom"  # of a group's entry that an override gives without one


def open_mappings(node: Any, kind: Any) -> None:
    """Let overrides add keys, without a +, to the mappings in ``node`` whose keys the schema does not know.

    ``kind`` is the type of ``node``.
    """
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or kind is None:
        return
    if is_whole(kind):
        OmegaConf.set_struct(node, False)
        return
    content = node.__dict__["_content"]  # OmegaConf's ways to it check every access
    if lacks_keys(kind, content):  # a file has given some keys of what is null by default
        OmegaConf.set_struct(node, False)
        for below in content.values():
            if isinstance(below, DictConfig):
                OmegaConf.set_struct(below, True)  # it would follow the one around it
    tag = content.get("kind")
    values = {"kind": tag._value()} if isinstance(tag, AnyNode) else {}
    for name, below in content.items():
        if isinstance(below, DictConfig):
            open_mappings(below, type_below(kind, name, values))


def apply(override: Any, config: DictConfig, as_hydra_does: Callable[[list[Any], DictConfig], None]) -> None:
    """Apply one override, after removing what a mapping that it gives replaces."""
    value, path = override.value(), tuple(override.key_or_group.split("."))
    if not isinstance(value, dict) or override.is_delete() or path[0] == "hydra":
        as_hydra_does([override], config)
        return
    before = OmegaConf.to_container(config, resolve=False)
    assert isinstance(before, dict)
    given: Any = value
    for name in reversed(path):
        given = {name: given}
    kind = type_at(path, before)
    if is_group(path, kind):
        _empty_entry(config, path, kind, value)
    else:
        for place in replaced(given, before):
            _set(config, place, {})
    as_hydra_does([override], config)
    if not is_group(path, kind):
        open_mappings(OmegaConf.select(config, override.key_or_group), kind)


def _empty_entry(config: DictConfig, path: Path, kind: Any, value: dict[Any, Any]) -> None:
    """Empty the entry of a group that ``value`` replaces, but for what follows a key at the root, as the seed does.

    A new entry without a name is called custom.
    """
    entry = OmegaConf.select(config, ".".join(path[:-1])) if path[:-1] else config
    entry = entry._get_node(path[-1]) if isinstance(entry, DictConfig) else None
    following = isinstance(entry, DictConfig) and not entry._is_interpolation() and not entry._is_none()
    raw = OmegaConf.to_container(entry, resolve=False) if following else {}
    assert isinstance(raw, dict)
    kept = {name: text for name, text in raw.items() if isinstance(text, str) and text.startswith("${")}
    if "name" not in value and has_key(kind, "name"):
        kept["name"] = NAME
    _set(config, path, kept)


def _set(config: DictConfig, path: Path, value: dict[Any, Any]) -> None:
    """Put ``value`` at ``path``, open to any key; what is wrong with it is found when it is converted."""
    parent = OmegaConf.select(config, ".".join(path[:-1])) if path[:-1] else config
    if isinstance(parent, DictConfig) and path[-1] in parent:
        parent[path[-1]] = value
        OmegaConf.set_struct(parent._get_node(path[-1]), False)  # type: ignore[arg-type]
