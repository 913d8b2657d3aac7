"""Composes overrides into a validated Config. No other module touches a DictConfig."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.config.folders import config_folder
from hermes_flow.config.given_keys import converted, given_keys
from hermes_flow.config.origin import Origins, origins
from hermes_flow.config.own_pools import own_pools_first
from hermes_flow.config.plugins import load_plugins
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError, HermesFlowError

if TYPE_CHECKING:
    from omegaconf import DictConfig


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Return the configuration that ``overrides`` (Hydra's grammar, as on the command line) describe.

    ``config_dir`` is a folder of your own entries and groups, beside the built-in ones. Raises ConfigError
    where a key, a value or a name is wrong, HermesFlowError where a file cannot be read.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import open_dict

    from hermes_flow.config.explain import explain, user_errors
    from hermes_flow.config.kept_loader import kept_loader

    arguments = list(overrides)
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("config_dir", f"there is no folder {config_dir}")
        arguments.append(f"hydra.searchpath=[{folder.as_uri()}]")
    try:
        with (
            _hydra_as_it_was(),
            composing(),
            kept_loader(arguments),
            initialize_config_dir(
                version_base="1.3", config_dir=str(config_folder()), job_name="hermes-flow"
            ),
        ):
            composed = hydra_compose("config", overrides=arguments, return_hydra_config=True)
    except user_errors() as error:
        from hermes_flow.config.own_entries import with_own_entry

        raise with_own_entry(explain(error, arguments), arguments) from None
    found = origins(composed.hydra, arguments)
    with open_dict(composed):
        del composed["hydra"]
    try:
        return to_config(composed, [*found.file_keys(), *arguments], found)
    except HermesFlowError as error:
        raise found.explained(error) from None


def to_config(composed: DictConfig, overrides: Sequence[str] = (), found: Origins | None = None) -> Config:
    """Return a composed DictConfig as a Config, strictly; raises ConfigError naming the key at fault.

    ``overrides`` are those it was composed with: keys among them that have no effect are reported by the compiler,
    with the place in the user's files that ``found`` knows.
    """
    from hermes_flow.config.explain import explain, user_errors
    from hermes_flow.config.quick_hydra import to_plain

    try:
        plain = to_plain(composed, resolve=True)
    except user_errors() as error:
        raise explain(error) from None
    if not isinstance(plain, Mapping):
        raise ConfigError("", "the configuration is not a mapping")
    load_plugins(plain.get("plugins"))
    config = converted(plain)
    if overrides:
        raw = to_plain(composed)
        object.__setattr__(config, "given", given_keys(plain, raw, overrides, found))
    return config


@contextmanager
def composing() -> Iterator[None]:
    """Let Hydra compose as we want it: quickly, strictly, and with mappings that replace what they should."""
    from hermes_flow.config.loading import our_loader
    from hermes_flow.config.quick_hydra import quick_hydra
    from hermes_flow.config.quick_yaml import fast_yaml

    with strict_search_path(), fast_yaml(), own_pools_first(), quick_hydra(), our_loader():
        yield


@contextmanager
def strict_search_path() -> Iterator[None]:
    """Make an error of Hydra's warning that a folder of ``hydra.searchpath`` does not exist."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=r"provider=.* is not\s+available", category=UserWarning)
        yield


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
