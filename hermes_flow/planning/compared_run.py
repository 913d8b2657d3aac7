"""A run of a comparison, with its figures and the settings that it ran with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hermes_flow.errors import HermesFlowError, reason
from hermes_flow.metrics.figures import figures_of, flattened, slo_met
from hermes_flow.metrics.run_files import RunFiles, read_run, require_simulation
from hermes_flow.metrics.stage_times import stage_times

_NO_SETTINGS = ("output", "task", "sweep", "plugins")  # they change no answer
_TEXTS = ("source", "notes")  # of figures in a catalog; nor do these


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison under its ``label``; ``settings`` is None if they are not known."""

    label: str
    files: RunFiles
    settings: dict[str, Any] | None = None
    group: str = ""
    """The sweep that it is a job of, or its own label."""

    @cached_property
    def figures(self) -> dict[str, float | bool]:
        """Every figure of its summary by dotted name."""
        return figures_of(self.files.summary)

    @cached_property
    def times(self) -> dict[tuple[str, str], float]:
        """The mean seconds of a request by stage and cause."""
        return stage_times(self.files.summary)

    @property
    def met(self) -> bool | None:
        """Whether it meets its SLO; None without one."""
        return slo_met(self.figures)


def run_of_folder(label: str, folder: Path, group: str) -> ComparedRun:
    """Return the run in a folder, as ``label`` of ``group``; raises HermesFlowError where it cannot be read."""
    files = require_simulation(read_run(folder))
    return ComparedRun(label, files, settings_of(folder), group)


def settings_of(folder: Path) -> dict[str, Any] | None:
    """Return the settings of a run by dotted key; None if its folder does not have them."""
    import yaml  # type: ignore[import-untyped]

    path = folder / ".hydra" / "config.yaml"
    if not path.is_file():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), loader)
    except (yaml.YAMLError, OSError) as error:
        raise HermesFlowError(f"{path}: cannot be read: {reason(error)}") from error
    kept = {name: value for name, value in config.items() if name not in _NO_SETTINGS}
    found = {**dict(flattened(kept)), **dict(_lists(kept))}
    return {key: value for key, value in found.items() if key.rpartition(".")[2] not in _TEXTS}


def _lists(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, entry in config.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(entry, Mapping):
            yield from _lists(entry, key)
        elif isinstance(entry, list):
            yield key, str(entry)
