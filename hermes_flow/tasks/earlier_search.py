"""Finds the folder of an earlier search that a command goes on from, and refuses one of other inputs."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.runs.result_files import INPUTS_FILE

_SETTINGS = Path(".hydra", "config.yaml")


def keep_inputs(folder: Path) -> None:
    """Write the digests of the files that a search in ``folder`` reads (a trace, a table), if there are any.

    Raises HermesFlowError where that is not possible.
    """
    from hermes_flow.metrics.files import write_text

    digests = _digests(folder / _SETTINGS)
    if digests:
        write_text(json.dumps(digests, indent=2, ensure_ascii=False) + "\n", folder / INPUTS_FILE)


def earlier_config(resume: str, config: Config) -> Config:
    """Return the configuration of the search in the folder ``resume``.

    Raises ConfigError if the folder has no search, if anything but its task and its output differs from ``config``,
    or if the content of a file that it reads (a trace, a table) is another one than when it began.
    """
    from omegaconf import DictConfig, OmegaConf

    from hermes_flow.config.compose import to_config
    from hermes_flow.config.quick_yaml import fast_yaml

    folder = Path(resume).expanduser()
    saved = folder / _SETTINGS
    if not saved.is_file():
        raise ConfigError("task.resume", f"{resume} is no folder of a search: it has no .hydra/config.yaml")
    with fast_yaml():
        container = OmegaConf.load(saved)
    assert isinstance(container, DictConfig)
    verb = OmegaConf.select(container, "task.kind")
    if verb != config.task.get("kind"):
        raise ConfigError(
            "task.resume", f"{resume} has the result of {verb}; expected that of {config.task.get('kind')}"
        )
    other = to_config(container)
    ours, theirs = replace(config, task={}), replace(other, task={}, output=config.output)
    if ours != theirs:
        differ = ", ".join(
            each.name
            for each in fields(Config)
            if each.compare and getattr(ours, each.name) != getattr(theirs, each.name)
        )
        problem = f"{resume} has a search of another configuration, which differs in {differ}"
        raise ConfigError("task.resume", f"{problem}; expected that of the same command")
    began = _kept_inputs(folder / INPUTS_FILE)
    for name, digest in _digests(saved).items():
        if name not in began:
            raise ConfigError(
                "task.resume", f"{resume} has no record of {name}, which the search in it reads"
            )
        if began[name] != digest:
            raise ConfigError("task.resume", f"{name} has changed since the search in {resume} began")
    return other


def _kept_inputs(path: Path) -> dict[str, str]:
    """Return the digests that a search has kept; none where it has kept none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digests(settings: Path) -> dict[str, str]:
    """Return the SHA-256 of every file that a saved configuration names; the time of its change says less."""
    from hermes_flow.runs.job_record import Identity

    if not settings.is_file():
        return {}
    found = {}
    for name in sorted(Identity(settings.read_text(encoding="utf-8")).inputs):
        path = Path(name).expanduser()
        if path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found
