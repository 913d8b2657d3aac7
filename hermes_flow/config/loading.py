"""Extends Hydra's loader: some mappings replace the mapping before them instead of being merged with it.

The rule (``replacement.py``) holds between the files that are composed, and for overrides. Hydra composes often, and
its own way takes most of the time of a short run; this loader therefore composes plain mappings (``plain_files.py``).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import hydra._internal.hydra
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra.conf import ConfigSourceInfo
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import DefaultsTreeNode, InputDefault, ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobRuntime
from hydra.plugins.config_source import ConfigResult
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from hermes_flow.config.overriding import NAME, apply, open_mappings
from hermes_flow.config.own_pools import own_pools_first
from hermes_flow.config.plain_files import Files, NotPlain, PlainFile, embedded, merge
from hermes_flow.config.quick_hydra import joined
from hermes_flow.config.replacement import Path, replaced
from hermes_flow.config.schema import Config

_BOUNDS = ("slo",)  # groups whose entries are tables of bounds


@dataclass
class _Choices:
    """The files that a configuration is made of, in order, and the choices that led to them.

    ``bounds`` are the groups of bounds that overrides give. ``complete`` tells that no choice is left open; Hydra
    accepts one that is only while it looks for the mode. ``composed`` are the merged files, our keys as plain
    mappings and the node ``hydra`` as it is, None before they are merged, and ``plain`` is false if they cannot be
    merged in this way.
    """

    files: list[ResultDefault]
    choices: dict[str, str | None]
    bounds: set[str]
    complete: bool
    composed: tuple[dict[Any, Any], DictConfig] | None = None
    plain: bool = True


class Loader(ConfigLoaderImpl):
    """Hydra's loader, but variants, tables and whole groups replace the earlier ones.

    It remembers what it read and composed while it lives, which is as long as the command. Hydra composes a run
    twice, once to ask for its mode, and each job of a sweep twice; jobs mostly choose the same files.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository: Files = Files(config_search_path)
        self._parsed: dict[str, Override] = {}
        self._repositories: dict[tuple[str | None, str], CachingConfigRepository] = {}
        self._chosen: dict[Any, _Choices] = {}
        self._of_hydra: dict[Any, DictConfig] = {}  # what Hydra merged of the same files; nobody changes it
        self._for_mode: tuple[str | None, list[str], DictConfig] | None = None
        self._loaded: dict[int, ConfigResult] = {}
        self._bounds: set[str] = set()

    @property
    def choices_known(self) -> int:
        """The number of choices whose files are remembered."""
        return len(self._chosen)

    @property
    def has_read_models(self) -> bool:
        """Whether a model was read from a file of the user."""
        return bool(self.repository.models)

    def _load_configuration_impl(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """Compose as Hydra's method of this name does, step by step."""
        self.ensure_main_config_source_available()
        parsed, repo = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        if validate_sweep_overrides:
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
        asked, self._for_mode = self._for_mode, None
        if asked is not None and asked[:2] == (config_name, overrides[: len(asked[1])]):
            added = parsed[len(asked[1]) :]
            if [override.key_or_group for override in added] in ([], ["hydra.mode"]):
                config = asked[2]
                ConfigLoaderImpl._apply_overrides_to_config(added, config)
                config.hydra.overrides.hydra.extend([override.input_line for override in added])
                return config
        chosen, own = self._choices(config_name, parsed, repo, run_mode == RunMode.MULTIRUN)
        config = self._composition(chosen, repo)
        OmegaConf.set_struct(config, True)
        OmegaConf.set_readonly(config.hydra, False)
        open_mappings(config, Config)
        for override in own:
            apply(override, config, ConfigLoaderImpl._apply_overrides_to_config)
        _fill_in(config, config_name, parsed, chosen.choices, repo)
        if not validate_sweep_overrides and chosen.complete:
            # Hydra only looks at its mode, and asks for the same again, with the mode if none was given.
            self._for_mode = (config_name, list(overrides), config)
        return config

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        new = [text for text in overrides if text not in self._parsed]
        if new:
            self._parsed.update(zip(new, OverridesParser.create().parse_overrides(new), strict=True))
        parsed = [copy.copy(self._parsed[text]) for text in overrides]
        searched = [override.input_line for override in parsed if override.key_or_group == "hydra.searchpath"]
        key = (config_name, repr(searched))
        if key not in self._repositories:
            repo = CachingConfigRepository(self.repository)
            self._process_config_searchpath(config_name, parsed, repo)
            self._repositories[key] = repo
        return parsed, self._repositories[key]

    def _choices(
        self,
        config_name: str | None,
        parsed: list[Override],
        repo: CachingConfigRepository,
        skip_missing: bool,
    ) -> tuple[_Choices, list[Override]]:
        """Return the files that the overrides choose, and those overrides that set keys."""
        with own_pools_first():
            overrides = defaults_list.Overrides(repo=repo, overrides_list=parsed)
        appended = [
            (entry.group, entry.package, repr(entry.value)) for entry in overrides.append_group_defaults
        ]
        deleted = [(name, deletion.name) for name, deletion in overrides.deletions.items()]
        bounds = {
            name for name in _BOUNDS for override in parsed if override.get_key_element().lstrip("+") == name
        }
        chosen = repr((overrides.override_choices, appended, deleted, bounds))
        key = (id(repo), config_name, skip_missing, chosen)
        if key not in self._chosen:
            with own_pools_first():
                files, tree = defaults_list._create_defaults_list(
                    repo, config_name, overrides, prepend_hydra=True, skip_missing=skip_missing
                )
            overrides.ensure_overrides_used()
            overrides.ensure_deletions_used()
            self._chosen[key] = _Choices(files, dict(overrides.known_choices), bounds, not _has_missing(tree))
        return self._chosen[key], overrides.config_overrides

    def _composition(self, chosen: _Choices, repo: CachingConfigRepository) -> DictConfig:
        """Return the composed files, as an object that nobody else has."""
        try:
            if chosen.composed is None and chosen.plain:
                chosen.composed = self._composed_plainly(chosen, repo)
            if chosen.composed is not None:
                return joined(*chosen.composed)
        except (NotPlain, OmegaConfBaseException):  # Hydra's own way names the file at fault
            chosen.composed, chosen.plain = None, False
        self._bounds = chosen.bounds
        return self._compose_config_from_defaults_list(chosen.files, repo)

    def _composed_plainly(
        self, chosen: _Choices, repo: CachingConfigRepository
    ) -> tuple[dict[Any, Any], DictConfig]:
        """Merge the files as plain mappings, and let Hydra merge its own part; raises NotPlain."""
        schemas = repo.get_schema_source()
        merged: dict[Any, Any] = {}
        of_hydra: list[ResultDefault] = []
        parts: dict[int, ConfigResult] = {}
        for default in chosen.files:
            path = default.config_path
            assert path is not None
            if path.startswith("hydra/"):
                of_hydra.append(default)
                continue
            loaded = repo.load_config(path)
            if not isinstance(loaded, PlainFile) or schemas.is_config(path):
                raise NotPlain
            given = embedded(loaded.plain, default.package)
            if "hydra" in given:
                if "searchpath" in given["hydra"] and not default.primary:
                    raise NotPlain  # Hydra refuses it
                parts[id(default)] = _part_of_hydra(given["hydra"], loaded)
                of_hydra.append(default)
                given = {name: value for name, value in given.items() if name != "hydra"}
            given = dict(given)
            for name in _whole_groups(default, loaded, given, merged):
                if name in chosen.bounds:  # on the command line, which wins
                    del given[name]
                    continue
                given[name] = _whole(given[name], merged.pop(name))
            for place in replaced(given, merged):
                _part(merged, place[:-1]).pop(place[-1])
            merge(merged, given)
        given_to_hydra = {place: repr(part.config) for place, part in parts.items()}
        key = (id(repo), *((repr(default), given_to_hydra.get(id(default))) for default in of_hydra))
        if key not in self._of_hydra:
            self._of_hydra[key] = self._merged_by_hydra(of_hydra, parts, repo)
        hydra = self._of_hydra[key]
        if list(hydra) != ["hydra"]:
            raise NotPlain
        return merged, hydra

    def _compose_config_from_defaults_list(
        self, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        """Load every file before Hydra merges them, and take out of each what a later one replaces."""
        parts: dict[int, ConfigResult] = {}
        earlier: list[DictConfig] = []
        merged: dict[Any, Any] = {}
        for default in defaults:
            loaded = self._load_single_config(default, repo)
            given = OmegaConf.to_container(loaded.config, resolve=False)
            assert isinstance(given, dict)
            assert isinstance(loaded.config, DictConfig)
            for name in _whole_groups(default, loaded, given, merged):
                if name in self._bounds:
                    del given[name], loaded.config[name]
                    continue
                given[name] = loaded.config[name] = _whole(given[name], merged.pop(name))
                for config in earlier:
                    _remove(config, (name,))
            for path in replaced(given, merged):
                for config in earlier:
                    _remove(config, path)
                _part(merged, path[:-1]).pop(path[-1])
            _merge(merged, given)
            earlier.append(loaded.config)
            parts[id(default)] = loaded
        return self._merged_by_hydra(defaults, parts, repo)

    def _merged_by_hydra(
        self, files: list[ResultDefault], parts: dict[int, ConfigResult], repo: IConfigRepository
    ) -> DictConfig:
        """Let Hydra merge the files; it takes those among ``parts``, by the id of their entry, as they are there."""
        self._loaded = parts
        try:
            return super()._compose_config_from_defaults_list(files, repo)
        finally:
            self._loaded = {}

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        """Return a file for a composition to change: merging moves its parts into the result."""
        known = self._loaded.get(id(default))
        if known is not None:
            return known
        assert isinstance(repo, CachingConfigRepository)
        loaded = super()._load_single_config(default, repo)
        del repo.cache[f"config_path={default.config_path}"]
        return loaded


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


def _part_of_hydra(given: Any, loaded: PlainFile) -> ConfigResult:
    """Return what one of our files says of Hydra's own settings."""
    return ConfigResult(loaded.provider, loaded.path, OmegaConf.create({"hydra": given}), loaded.header)


def _whole_groups(
    default: ResultDefault, loaded: ConfigResult, given: dict[Any, Any], before: dict[Any, Any]
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


def _whole(given: dict[Any, Any], before: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the entry of a group that ``given`` describes, with the tables of the entry before, but empty."""
    return {"name": NAME} | {key: {} for key, value in before.items() if isinstance(value, Mapping)} | given


def _has_missing(tree: DefaultsTreeNode | InputDefault) -> bool:
    """Tell whether a choice was left open."""
    if isinstance(tree, InputDefault):
        return not tree.is_virtual() and tree.is_missing()
    return _has_missing(tree.node) or any(_has_missing(child) for child in tree.children or ())


def _fill_in(
    config: DictConfig,
    config_name: str | None,
    parsed: list[Override],
    choices: Mapping[str, str | None],
    repo: IConfigRepository,
) -> None:
    """Write into the node ``hydra`` what Hydra writes there: the overrides, the choices and where it runs."""
    from hydra import __version__, version

    node = config.hydra
    ours = [override for override in parsed if not override.is_hydra_override()]
    node.overrides.hydra.extend([override.input_line for override in parsed if override.is_hydra_override()])
    node.overrides.task.extend([override.input_line for override in ours])
    with open_dict(node):
        node.runtime.choices.update(choices)
        for name in node.job.env_copy:
            node.job.env_set[name] = os.environ[name]
    node.runtime.version = __version__
    node.runtime.version_base = version.getbase()
    node.runtime.cwd = os.getcwd()
    node.runtime.config_sources = [
        ConfigSourceInfo(path=source.path, schema=source.scheme(), provider=source.provider)
        for source in repo.get_sources()
    ]
    if "name" not in node.job:
        node.job.name = JobRuntime().get("name")
    named = node.job.config.override_dirname
    node.job.override_dirname = get_overrides_dirname(
        ours, kv_sep=named.kv_sep, item_sep=named.item_sep, exclude_keys=named.exclude_keys
    )
    node.job.config_name = config_name


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
