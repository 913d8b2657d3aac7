"""Composing: overrides in, a validated Config out. The only place that touches a DictConfig."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.convert import convert
from hermes_flow.config.folders import config_folder
from hermes_flow.config.open_choices import fill_open_choices
from hermes_flow.config.origin import origins
from hermes_flow.config.own_pools import own_pools_first
from hermes_flow.config.plugins import load_plugins
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError, HermesFlowError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NOT_OURS = ("hydra", "experiment")
_REFERRED_TO = (
    "seed",
    "model",
    "hardware",
)  # by others; converted first, so that a mistake is named where it is

# Mappings whose keys depend on the variant they name: an override with a mapping replaces them whole, where
# Hydra alone would merge the old variant's keys into the new one.
_VARIANT = re.compile(
    r"(?:\+\+)?((?:workload\.(?:arrivals|turns|think_time_s|input_tokens|output_tokens|system_prompt_tokens"
    r"|models)|pipeline\.shares"
    r"|cluster\.pools\.[^.=]+\.(?:packing|batching))=)\{"
)


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Return the configuration that ``overrides`` (Hydra's grammar, as on the command line) describe.

    ``config_dir`` is a folder of your own entries and groups, beside the built-in ones. Raises ConfigError
    where a key, a value or a name is wrong, HermesFlowError where a file cannot be read.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import open_dict

    from hermes_flow.config.explain import explain, user_errors

    arguments = prepared(overrides)
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("config_dir", f"there is no folder {config_dir}")
        arguments.append(f"hydra.searchpath=[{folder.as_uri()}]")
    try:
        with (
            _hydra_as_it_was(),
            strict_search_path(),
            fast_yaml(),
            own_pools_first(),
            initialize_config_dir(
                version_base="1.3", config_dir=str(config_folder()), job_name="hermes-flow"
            ),
        ):
            composed = hydra_compose("config", overrides=arguments, return_hydra_config=True)
    except user_errors() as error:
        raise explain(error) from None
    found = origins(composed.hydra, arguments)
    with open_dict(composed):
        del composed["hydra"]
    try:
        return to_config(composed, arguments)
    except HermesFlowError as error:
        raise found.explained(error) from None


def to_config(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Return a composed DictConfig as a Config, strictly; raises ConfigError naming the key at fault.

    ``overrides`` are those it was composed with.
    """
    from omegaconf import OmegaConf

    from hermes_flow.config.explain import explain, user_errors

    try:
        plain: Any = OmegaConf.to_container(composed, resolve=True)
    except user_errors() as error:
        raise explain(error) from None
    if not isinstance(plain, Mapping):
        raise ConfigError("", "the configuration is not a mapping")
    _replace_variants(plain, overrides)
    fill_open_choices(plain)
    load_plugins(plain.get("plugins"))
    ours = sorted((key for key in plain if key not in _NOT_OURS), key=lambda key: key not in _REFERRED_TO)
    return convert(Config, {key: plain[key] for key in ours}, "")


@contextmanager
def strict_search_path() -> Iterator[None]:
    """Make an error of Hydra's warning that a folder of ``hydra.searchpath`` does not exist."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"provider=.* is not\s+available", category=UserWarning)
        yield


@contextmanager
def fast_yaml() -> Iterator[None]:
    """Let OmegaConf read YAML through libyaml, where PyYAML has it: composing takes a fifth less."""
    import yaml  # type: ignore[import-untyped]

    loader = yaml.SafeLoader
    yaml.SafeLoader = getattr(
        yaml, "CSafeLoader", loader
    )  # OmegaConf derives its own from it whenever it reads
    try:
        yield
    finally:
        yaml.SafeLoader = loader


@contextmanager
def _hydra_as_it_was() -> Iterator[None]:
    """Give Hydra a clean start and put its global state back, for callers that are Hydra apps themselves."""
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.singleton import Singleton
    from hydra.core.utils import JobRuntime
    from hydra.version import VersionBase

    kept = {kind: Singleton._instances.pop(kind, None) for kind in (GlobalHydra, JobRuntime, VersionBase)}
    try:
        yield
    finally:
        for kind, instance in kept.items():
            Singleton._instances.pop(kind, None)
            if instance is not None:
                Singleton._instances[kind] = instance


def prepared(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra takes them: a variant given as a mapping may have keys of its own."""
    return [f"++{text.removeprefix('++')}" if _VARIANT.match(text) else text for text in overrides]


def _replace_variants(plain: Any, overrides: Sequence[str]) -> None:
    """Cut every variant that an override gives as a mapping down to the keys given there and later on."""
    whole = {match[1][:-1]: index for index, text in enumerate(overrides) if (match := _VARIANT.match(text))}
    for key, index in whole.items():
        *path, name = key.split(".")
        parent = functools.reduce(lambda node, part: node[part], path, plain)
        merged = parent[name]
        variant = _part(_mapping_given(overrides[index]), merged)
        for text in overrides[index + 1 :]:
            later, _, below = text.partition("=")[0].lstrip("+").partition(f"{key}.")
            if not later and below:
                first = below.split(".")[0]
                variant |= {entry: value for entry, value in merged.items() if str(entry) == first}
        parent[name] = variant


def _mapping_given(text: str) -> Any:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides([text])[0].value()


def _part(given: Any, merged: Any) -> Any:
    """Return of ``merged`` only the keys that ``given`` has."""
    if not isinstance(given, Mapping) or not isinstance(merged, Mapping):
        return merged
    return {key: _part(value, merged[key]) for key, value in given.items() if key in merged}
