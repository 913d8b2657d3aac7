"""Extends Hydra's loader: some mappings replace the mapping before them instead of being merged with it.

The rule (``replacement.py``) holds between the files that are composed, and for overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult
from omegaconf import AnyNode, DictConfig, OmegaConf, flag_override

from hermes_flow.config.hugging_face import entry_of, is_hugging_face
from hermes_flow.config.replacement import Path, has_key, is_group, is_whole, replaced, type_at, type_below
from hermes_flow.config.schema import Config

_BOUNDS = ("slo",)  # groups whose entries are tables of bounds
_NAME = "custom"  # of a group's entry that an override gives without one


class _Repository(ConfigRepository):
    """Finds the entries of groups as Hydra does, and models that the path of a Hugging Face config.json names."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what a file says; a config.json becomes an entry of the catalog of models."""
        path = _model_path(config_path)
        if path is None or self._find_object_source(config_path, ObjectType.CONFIG) is not None:
            return super().load_config(config_path)
        result = ConfigResult(
            provider="hugging_face",
            path=path,
            config=OmegaConf.create(entry_of(path)),
            header={"package": None},
        )
        result.defaults_list = []
        return result

    def config_exists(self, config_path: str) -> bool:
        """Tell whether there is such a file."""
        return _model_path(config_path) is not None or super().config_exists(config_path)


def _model_path(config_path: str) -> str | None:
    """Return the file or folder of Hugging Face that an entry of the group ``model`` names, if it names one."""
    group, _, name = config_path.partition("/")
    return name if group == "model" and is_hugging_face(name) else None


class Loader(ConfigLoaderImpl):
    """Hydra's loader, but variants, tables and whole groups replace the earlier ones."""

    _loaded: dict[int, Any]
    _chosen: set[str]

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository = _Repository(config_search_path)

    @contextmanager
    def _our_overrides(self) -> Iterator[None]:
        """Let Hydra, which calls this step by the name of its own class, apply overrides as we do."""
        before = ConfigLoaderImpl.__dict__["_apply_overrides_to_config"]
        as_hydra_does = before.__func__

        def apply(overrides: Sequence[Any], config: DictConfig) -> None:
            _open(config, Config)
            for override in overrides:
                _apply(override, config, as_hydra_does)

        ConfigLoaderImpl._apply_overrides_to_config = staticmethod(apply)  # type: ignore[method-assign, assignment]
        try:
            yield
        finally:
            ConfigLoaderImpl._apply_overrides_to_config = before  # type: ignore[method-assign]

    def _load_configuration_impl(self, *args: Any, **kwargs: Any) -> DictConfig:
        given = kwargs["overrides"] if "overrides" in kwargs else args[1]
        self._chosen = {str(override).lstrip("+").partition("=")[0] for override in given}
        with self._our_overrides():
            return super()._load_configuration_impl(*args, **kwargs)

    def _compose_config_from_defaults_list(self, defaults: list[Any], repo: Any) -> DictConfig:
        """Load every file before Hydra merges them, and take out of each what a later one replaces."""
        self._loaded = {}
        earlier: list[DictConfig] = []
        merged: dict[Any, Any] = {}
        for default in defaults:
            loaded = super()._load_single_config(default, repo)
            given = OmegaConf.to_container(loaded.config, resolve=False)
            assert isinstance(given, dict)
            assert isinstance(loaded.config, DictConfig)
            for name in _whole_groups(default, loaded, given, merged):
                if name in self._chosen:  # on the command line, which wins
                    del given[name], loaded.config[name]
                    continue
                tables: dict[Any, Any] = {
                    key: {} for key, value in merged[name].items() if isinstance(value, Mapping)
                }
                given[name] = loaded.config[name] = {"name": _NAME} | tables | given[name]
                merged[name] = {}
                for config in earlier:
                    _remove(config, (name,))
            for path in replaced(given, merged):
                for config in earlier:
                    _remove(config, path)
                _part(merged, path[:-1]).pop(path[-1])
            _merge(merged, given)
            earlier.append(loaded.config)
            self._loaded[id(default)] = loaded
        try:
            return super()._compose_config_from_defaults_list(defaults, repo)
        finally:
            self._loaded = {}

    def _load_single_config(self, default: Any, repo: Any) -> Any:
        return self._loaded[id(default)]


@contextmanager
def our_loader() -> Iterator[None]:
    """Let Hydra compose with this loader, also in the processes of a launcher."""
    names = vars(hydra._internal.hydra)
    before = names["ConfigLoaderImpl"]
    names["ConfigLoaderImpl"] = Loader
    try:
        yield
    finally:
        names["ConfigLoaderImpl"] = before


def _open(node: Any, kind: Any) -> None:
    """Let overrides add keys, without a +, to the mappings in ``node`` whose keys the schema does not know.

    ``kind`` is the type of ``node``.
    """
    if not isinstance(node, DictConfig) or node._is_none() or node._is_interpolation() or kind is None:
        return
    if is_whole(kind):
        OmegaConf.set_struct(node, False)
        return
    values = {"kind": node._get_node("kind")} if "kind" in node else {}
    values = {name: value._value() for name, value in values.items() if isinstance(value, AnyNode)}
    for name, below in node.items_ex(resolve=False):
        if isinstance(below, DictConfig):
            _open(below, type_below(kind, name, values))


def _apply(override: Any, config: DictConfig, as_hydra_does: Callable[[list[Any], DictConfig], None]) -> None:
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
        _open(OmegaConf.select(config, override.key_or_group), kind)


def _whole_groups(
    default: Any, loaded: ConfigResult, given: dict[Any, Any], before: dict[Any, Any]
) -> list[str]:
    """Return the groups that a file outside of them, such as an experiment, gives as a whole.

    These are bounds: one that is left out is no bound, whatever the entry before had, unless the file itself chooses
    that entry. A mapping of another group changes the keys that it gives, as Hydra's files do.
    """
    if default.package or default.primary:
        return []
    built_on = {str(getattr(entry, "group", "")).strip("/") for entry in loaded.defaults_list or ()}
    return [
        name
        for name in _BOUNDS
        if isinstance(given.get(name), dict) and name in before and name not in built_on
    ]


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
        kept["name"] = _NAME
    _set(config, path, kept)


def _set(config: DictConfig, path: Path, value: dict[Any, Any]) -> None:
    """Put ``value`` at ``path``, open to any key; what is wrong with it is found when it is converted."""
    parent = OmegaConf.select(config, ".".join(path[:-1])) if path[:-1] else config
    if isinstance(parent, DictConfig) and path[-1] in parent:
        parent[path[-1]] = value
        OmegaConf.set_struct(parent._get_node(path[-1]), False)  # type: ignore[arg-type]


def _remove(config: DictConfig, path: Path) -> None:
    """Remove the mapping at ``path``, if the file has one there."""
    node: Any = config
    for name in path[:-1]:
        node = node._get_node(name) if isinstance(node, DictConfig) and name in node else None
    if isinstance(node, DictConfig) and isinstance(node._get_node(path[-1]), DictConfig):
        with flag_override(node, ["readonly", "struct"], False):
            node.pop(path[-1])


def _part(config: Any, path: Path) -> Any:
    for name in path:
        config = config[name]
    return config


def _merge(merged: dict[Any, Any], given: Mapping[Any, Any]) -> None:
    for name, value in given.items():
        old = merged.get(name)
        if isinstance(value, dict) and isinstance(old, dict):
            _merge(old, value)
        else:
            merged[name] = value
