"""Finds the folder of an earlier search that a command goes on from, and refuses one of other inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError


def earlier_config(resume: str, config: Config) -> Config:
    """Return the configuration of the search in the folder ``resume``.

    Raises ConfigError if the folder has no search, if anything but its task and its output differs from ``config``,
    or if a file that it reads (a trace, a table) has changed since it began.
    """
    from omegaconf import DictConfig, OmegaConf

    from hermes_flow.config.compose import to_config
    from hermes_flow.runs.job_record import Identity

    saved = Path(resume).expanduser() / ".hydra" / "config.yaml"
    if not saved.is_file():
        raise ConfigError("task.resume", f"{resume} is no folder of a search: it has no .hydra/config.yaml")
    container = OmegaConf.load(saved)
    assert isinstance(container, DictConfig)
    verb = OmegaConf.select(container, "task.kind")
    if verb != config.task.get("kind"):
        raise ConfigError(
            "task.resume", f"{resume} has the result of {verb}; expected that of {config.task.get('kind')}"
        )
    other = to_config(container)
    if replace(other, task={}, output=config.output) != replace(config, task={}):
        raise ConfigError("task.resume", f"{resume} has a search of another configuration or another key")
    began_ns = saved.stat().st_mtime_ns
    for name, (_, changed_ns) in Identity(saved.read_text(encoding="utf-8")).inputs.items():
        if changed_ns > began_ns:
            raise ConfigError("task.resume", f"{name} has changed since the search in {resume} began")
    return other
