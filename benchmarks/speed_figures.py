"""The figures behind docs/speed.md, kept as JSON beside it: what was measured, when, and on which machine."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from benchmarks.speed_cases import Figures, Load

START_UP, POLICIES = "start-up", "policies"


@dataclass(slots=True)
class Measured:
    """The figures of each load by name, the policies with their CPU seconds and multiples, and where all is from.

    ``sitting`` is when the newest measurement began, as "2026-11-30 10:40" in UTC, and ``sittings`` has the same for
    each load, for the start-up and for the policies. ``runs`` are the fresh processes of a figure. ``sections`` has
    the names of the loads by section of the page, in their order.
    """

    machine: str
    sitting: str
    runs: int
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    policies: list[tuple[str, float, float]] = field(default_factory=list)
    sittings: dict[str, str] = field(default_factory=dict)
    sections: dict[str, list[str]] = field(default_factory=dict)

    def add(self, found: Figures) -> None:
        """Take in figures of the newest sitting, in place of older ones."""
        for name, figures in found.items():
            self.figures[name] = dict(figures)
            self.sittings[name] = self.sitting

    def add_policies(self, found: list[tuple[str, float, float]]) -> None:
        """Take in the policies of the newest sitting, in place of older ones."""
        self.policies = found
        self.sittings[POLICIES] = self.sitting

    def keep(self, loads: Sequence[Load]) -> None:
        """Keep the figures of these loads, in their order and sections, and leave out those of others."""
        names = [*(load.name for load in loads), START_UP, POLICIES]
        self.figures = {name: self.figures[name] for name in names if name in self.figures}
        self.sittings = {name: self.sittings[name] for name in names if name in self.sittings}
        self.sections = {load.section: [] for load in loads}
        for load in loads:
            if load.name in self.figures:
                self.sections[load.section].append(load.name)

    def older(self) -> dict[str, list[str]]:
        """Return by its sitting what the newest one did not measure, the newest of these first."""
        found: dict[str, list[str]] = {}
        for name, when in self.sittings.items():
            if when != self.sitting:
                found.setdefault(when, []).append(name)
        return dict(sorted(found.items(), reverse=True))

    def write(self, path: Path) -> None:
        """Write all as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read(path: Path) -> Measured:
    """Return what ``Measured.write`` has written."""
    found = json.loads(path.read_text(encoding="utf-8"))
    policies = [(name, seconds, share) for name, seconds, share in found.pop("policies")]
    return Measured(policies=policies, **found)


def this_machine() -> str:
    """Return the cores, the system and the versions of Python, NumPy and Polars."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "polars"))
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({platform.system()}, {platform.machine()}), {python}, {libraries}"
