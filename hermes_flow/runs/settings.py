"""Reads the settings of a command that concern its folder, before the configuration as a whole is converted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.config.convert import convert, convert_value
from hermes_flow.config.origin import shown_path
from hermes_flow.config.schema import Sweep
from hermes_flow.program.quick_dataclass import dataclass

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PREFIXES = ("sweep.", "output.overwrite=", "sweep=")


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """``sweep_keys`` are those keys of ``sweep`` that the command line gives."""

    sweep: Sweep
    overwrite: bool
    sweep_keys: tuple[str, ...]


def folder_settings(config: DictConfig) -> FolderSettings:
    """Return the settings in Hydra's composed ``config``; raises ConfigError where one is wrong."""
    from omegaconf import OmegaConf

    node = OmegaConf.select(config, "sweep")
    given = (
        {}
        if node is None
        else OmegaConf.to_container(node, resolve=True)
        if OmegaConf.is_config(node)
        else node
    )
    overwrite = convert_value(
        bool, OmegaConf.select(config, "output.overwrite", default=False), "output.overwrite"
    )
    texts = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(texts, list)
    keys = [str(text).partition("=")[0].lstrip("+") for text in texts]
    return FolderSettings(
        convert(Sweep, given, "sweep"), overwrite, tuple(key for key in keys if key.split(".")[0] == "sweep")
    )


def resuming(folder: Path, hydra_overrides: Sequence[str]) -> str:
    """Return the command that goes on from the simulations of a search in ``folder``.

    A folder that the command named is used already, so the next command has to name another one.
    """
    named = any(text.startswith("hydra.run.dir=") for text in hydra_overrides)
    another = "hydra.run.dir=ANOTHER_FOLDER and " if named else ""
    return f"the same command with {another}task.resume={shown_path(folder)}"


def concerns_folder(override: str) -> bool:
    """Return whether an override concerns the folder of the command and not the jobs in it."""
    return override.lstrip("+").startswith(_PREFIXES)
