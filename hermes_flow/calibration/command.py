"""Writes the command that simulates with a calibrated entry, with the overrides of the calibration."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hermes_flow.config.folders import user_folders

_WIDTH = 80
_FITTED = ("step_us", "sequence_us", "ingest_ms")  # of hardware.engine: an override would undo the entry


def given() -> tuple[str, ...]:
    """Return the overrides of the command line as written, without those of ``task``; none outside a command."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    if not HydraConfig.initialized():
        return ()
    texts: Any = OmegaConf.to_container(OmegaConf.select(HydraConfig.get(), "overrides.task"), resolve=False)  # type: ignore[arg-type]
    return tuple(text for text in texts if _key(text).split(".")[0] != "task")


def other_folders(confs: Path) -> tuple[str, ...]:
    """Return an override for the user's other folders of configs, if the command has any beside ``confs``."""
    folders = user_folders()
    others = [folder.as_uri() for folder in folders if folder != confs.resolve()]
    return (f"hydra.searchpath=[{','.join(others)}]",) if others else ()


def deployment(overrides: Sequence[str], pool: str, entry: str, *, own: bool = False) -> list[str]:
    """Return the overrides of a deployment with ``entry`` as the hardware of ``pool``.

    Without ``own`` it is that of all pools that take the choice of hardware.
    """
    alone = f"hardware@cluster.pools.{pool}.hardware"
    place = alone if own or alone in map(_key, overrides) else "hardware"
    plus = next(("+" for text in overrides if text.startswith(f"+{alone}=")), "")
    holders = ("hardware", f"cluster.pools.{pool}.hardware")
    dropped = {place, *(f"{holder}.engine.{figure}" for holder in holders for figure in _FITTED)}
    return [f"{plus}{place}={entry}", *(text for text in overrides if _key(text) not in dropped)]


def with_defaults(overrides: Sequence[str], defaults: Sequence[str]) -> list[str]:
    """Return the overrides, and those of ``defaults`` with other keys."""
    keys = {_key(text) for text in overrides}
    return [*overrides, *(text for text in defaults if _key(text) not in keys)]


def pasted(words: Sequence[str]) -> str:
    """Return the words quoted for a shell, in lines of at most 80 columns joined by backslashes."""
    lines, line = [], " "
    for index, word in enumerate(map(shlex.quote, words)):
        room = _WIDTH - (2 if index < len(words) - 1 else 0)
        if line.strip() and len(line) + 1 + len(word) > room:
            lines.append(f"{line} \\")
            line = "   "
        line = f"{line} {word}"
    return "\n".join([*lines, line])


def _key(text: str) -> str:
    return text.partition("=")[0].lstrip("+~")
