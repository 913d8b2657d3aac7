"""Reads the files of config groups as plain mappings, and merges them as Hydra would merge its own objects.

OmegaConf makes an object for every value of every file, which takes most of the time of composing. Here the files
stay plain until they are merged. What the plain way does not cover raises ``NotPlain``; the loader then composes as
Hydra does, with the same result and Hydra's own messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault, InputDefault
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hermes_flow.config.quick_yaml import read_plain
from hermes_flow.errors import HermesFlowError

MISSING = "???"
# What Hydra and OmegaConf raise for a defaults list that makes no sense
UNREADABLE = (AssertionError, AttributeError, HydraException, OmegaConfBaseException, TypeError, ValueError)


class NotPlain(Exception):  # noqa: N818
    """Raised where a configuration has to be composed from Hydra's own objects."""


class PlainFile(ConfigResult):
    """A file of a config group. ``plain`` is its content without the defaults list; nobody may change it."""

    def __init__(
        self, provider: str, path: str, header: dict[str, str | None], plain: dict[Any, Any]
    ) -> None:
        self.provider, self.path, self.header, self.plain = provider, path, header, plain
        self.is_schema_source = False
        self._config: Any = None

    @property
    def config(self) -> Any:
        """The content as an object of OmegaConf, made when it is first asked for."""
        if self._config is None:
            self._config = OmegaConf.create(self.plain)
        return self._config

    @config.setter
    def config(self, value: Any) -> None:
        self._config = value


class _Defaults(list[InputDefault]):
    """A defaults list. Hydra copies it before it fills it in, and the entries hold only texts and flags."""

    def __deepcopy__(self, memo: dict[int, Any]) -> list[InputDefault]:
        return [_copied_entry(entry) for entry in self]


def _copied_entry(entry: InputDefault) -> InputDefault:
    copied = object.__new__(type(entry))
    copied.__dict__.update(entry.__dict__)
    return copied


class Files(ConfigRepository):
    """Finds the entries of groups as Hydra does, and models that the path of a Hugging Face config.json names."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        self._places: dict[tuple[str, ObjectType | None], ConfigSource | None] = {}
        self.models: list[str] = []  # those that were read from files of Hugging Face, here and in copies
        super().__init__(config_search_path)

    def __deepcopy__(self, memo: dict[int, Any]) -> Files:
        """Return a repository of the same folders; a composition may then give it others."""
        copied = object.__new__(type(self))
        copied.sources, copied._places, copied.models = list(self.sources), {}, self.models
        return copied

    def initialize_sources(self, config_search_path: ConfigSearchPath) -> None:
        """Search these folders from now on."""
        self._places = {}
        super().initialize_sources(config_search_path)

    def load_config(self, config_path: str) -> ConfigResult | None:
        """Return what a file says; a config.json becomes an entry of the catalog of models."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None:
            model = _model_path(config_path)
            if model is None:
                return None
            self.models.append(model)
            return self._result(config_path, _model(model))
        # Only our own groups: Hydra's files are merged with its schema.
        plain = source.scheme() == "file" and not config_path.startswith("hydra/")
        result = _read(source, config_path) if plain else None
        return super().load_config(config_path) if result is None else self._result(config_path, result)

    def config_exists(self, config_path: str) -> bool:
        """Tell whether there is such a file."""
        return super().config_exists(config_path) or _model_path(config_path) is not None

    def _result(self, config_path: str, result: PlainFile) -> PlainFile:
        entries = result.plain.pop("defaults", None)
        if entries is None:
            result.defaults_list = _Defaults()
            return result
        found = self._entries(entries)
        if found is None:
            found = self._entries_by_hydra(config_path, entries)
        result.defaults_list = _Defaults(found)
        return result

    def _entries(self, entries: Any) -> list[InputDefault] | None:
        """Return a defaults list as Hydra reads it; None for anything but names and single choices."""
        if not isinstance(entries, list):
            return None
        found: list[InputDefault] = []
        for entry in entries:
            if isinstance(entry, str):
                path, package, _ = self._split_group(entry)
                found.append(ConfigDefault(path=path, package=package))
                continue
            if not isinstance(entry, dict) or len(entry) != 1:
                return None
            ((group, value),) = entry.items()
            if not isinstance(group, str) or not isinstance(value, str | None):
                return None
            name, package, _ = self._split_group(group)
            words = self.Keywords()
            self._extract_keywords_from_config_group(name, words)
            found.append(
                GroupDefault(
                    group=words.group,
                    value=value,
                    package=package,
                    optional=words.optional,
                    override=words.override,
                )
            )
        return found

    def _entries_by_hydra(self, config_path: str, entries: Any) -> list[InputDefault]:
        """Return a defaults list that only Hydra reads; raises HermesFlowError naming the file where it cannot."""
        try:
            listed = OmegaConf.create({"defaults": entries})
            defaults = self._extract_defaults_list(config_path, listed)
            return self._create_defaults_list(config_path, defaults)
        except UNREADABLE as error:
            raise HermesFlowError(
                f"{config_path}.yaml: its defaults list cannot be read; expected entries as in '- GROUP: NAME' or "
                "'- NAME', with texts as names"
            ) from error

    def _find_object_source(self, config_path: str, object_type: ObjectType | None) -> ConfigSource | None:
        key = (config_path, object_type)
        if key not in self._places:
            self._places[key] = super()._find_object_source(config_path, object_type)
        return self._places[key]


def embedded(plain: dict[Any, Any], package: str | None) -> dict[Any, Any]:
    """Return ``plain`` at the key ``package``, such as ``cluster.pools.llm``; raises NotPlain for other keys."""
    if not package:
        return plain
    if "[" in package:
        raise NotPlain
    for name in reversed(package.split(".")):
        plain = {name: plain}
    return plain


def merge(merged: dict[Any, Any], given: Mapping[Any, Any]) -> None:
    """Merge ``given`` into ``merged`` as OmegaConf does; raises NotPlain where that depends on other keys."""
    for name, value in given.items():
        old = merged.get(name)
        if isinstance(value, dict):
            if isinstance(old, dict):
                merge(old, value)
                continue
            if isinstance(old, list) or (isinstance(old, str) and "${" in old):
                raise NotPlain
        elif isinstance(value, list):
            if isinstance(old, dict) or (isinstance(old, str) and "${" in old):
                raise NotPlain
        elif value == MISSING and name in merged:
            continue
        merged[name] = copied(value)


def copied(value: Any) -> Any:
    """Return the mappings and lists of a plain value as new ones."""
    if isinstance(value, dict):
        return {name: copied(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [copied(entry) for entry in value]
    return value


def _read(source: ConfigSource, config_path: str) -> PlainFile | None:
    """Read a file; None if it holds anything other than a mapping."""
    with Path(source.path, source._normalize_file_name(config_path)).open(encoding="utf-8") as file:
        header = ConfigSource._get_header_dict(file.read(512))
        file.seek(0)
        plain = read_plain(file)
    if plain is None:
        plain = {}
    if not isinstance(plain, dict):
        return None
    return PlainFile(source.provider, f"{source.scheme()}://{source.path}", header, plain)


def _model_path(config_path: str) -> str | None:
    """Return the file or folder of Hugging Face that an entry of the group ``model`` names, if it names one."""
    group, _, name = config_path.partition("/")
    if group != "model":
        return None
    from hermes_flow.config.hugging_face import is_hugging_face

    return name if is_hugging_face(name) else None


def _model(path: str) -> PlainFile:
    from hermes_flow.config.hugging_face import entry_of

    return PlainFile("hugging_face", path, {"package": None}, entry_of(path))
