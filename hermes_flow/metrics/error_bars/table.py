"""Reads the errors of left-out runs by their kind, from the file that ``python -m benchmarks.error_bars`` writes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import field
from functools import cache
from pathlib import Path
from typing import Any

from hermes_flow.program.evidence import Evidence
from hermes_flow.program.quick_dataclass import dataclass

FILE = Path(__file__).with_name("left_out_errors.json")


@dataclass(frozen=True, slots=True)
class Interval:
    """The interval that holds four of five left-out ``runs``, as measured / simulated.

    ``recorded`` tells whether it is recorded how these runs were measured.
    """

    low: float
    high: float
    runs: int
    recorded: bool = True


@dataclass(frozen=True, slots=True)
class ErrorTable:
    """The errors of all groups of left-out runs.

    ``groups`` have intervals for each metric by class of runs: "dense" and "mixture", "light" and "busy", or "all"
    where a group has no classes. ``hardware`` and ``models`` have the figures by which those of the
    runs are known again. ``measured`` has the models of each engine and hardware, ``makers`` those of the hardware,
    ``features`` what some runs of each engine have and most do not. ``kernels`` has the hardware whose kernels others
    have, None where that is the mean of all; hardware that is not in it has its own.
    """

    groups: dict[str, dict[str, dict[str, Interval]]]
    hardware: dict[str, tuple[float | None, ...]]
    models: dict[str, tuple[float, ...]]
    measured: dict[str, tuple[str, ...]]
    makers: tuple[str, ...] = ()
    features: dict[str, tuple[str, ...]] = field(default_factory=dict)
    kernels: dict[str, str | None] = field(default_factory=dict)

    def intervals(self, group: str, classes: Sequence[str]) -> dict[str, Interval] | None:
        """Return the interval of each metric for a run of these classes; None where the group has not all of them."""
        found = {}
        for metric, by_class in self.groups.get(group, {}).items():
            own = next((by_class[each] for each in (*classes, "all") if each in by_class), None)
            if own is None:
                return None
            found[metric] = own
        return found or None

    def has_hardware(self, evidence: Evidence) -> bool:
        """Tell whether runs on this hardware are known, with the kernels and the datasheet that it has here."""
        name = evidence.hardware
        kernels = self.kernels.get(name, name)
        return (self.hardware.get(name), kernels) == (evidence.figures, evidence.kernels_of)

    def has_model(self, evidence: Evidence) -> bool:
        """Tell whether runs of this model on this hardware and engine are known."""
        models = self.measured.get(f"{evidence.engine}/{evidence.hardware}", ())
        return evidence.model in models and self.knows_model(evidence)

    def knows_model(self, evidence: Evidence) -> bool:
        """Tell whether runs of this model are known, on whatever hardware and engine."""
        return self.models.get(evidence.model) == evidence.shape


@cache
def error_table() -> ErrorTable:
    """Return the table of the package."""
    return read_table(json.loads(FILE.read_text(encoding="utf-8")))


def read_table(data: dict[str, Any]) -> ErrorTable:
    """Return the table from its JSON form."""
    groups = {
        name: {
            metric: {each: Interval(**entry) for each, entry in classes.items()}
            for metric, classes in metrics.items()
        }
        for name, metrics in data["groups"].items()
    }
    return ErrorTable(
        groups,
        {name: tuple(figures) for name, figures in data["hardware"].items()},
        {name: tuple(shape) for name, shape in data["models"].items()},
        {place: tuple(models) for place, models in data["measured"].items()},
        tuple(data.get("makers", ())),
        {engine: tuple(features) for engine, features in data.get("features", {}).items()},
        dict(data.get("kernels", {})),
    )
