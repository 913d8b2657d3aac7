"""Asks whether an engine's runs agree on what a decode step takes in each layer, and prints what each of them wants.

``python -m benchmarks.decode_constants [--data DATA] [--engine trtllm|sglang] [--rows 9]`` (about four minutes on one
core). The mean time per output token of a run is linear in the three constants that are asked for: the time of a
layer, of a layer of experts, and the wait of an all-reduce. Each is changed once, and the constants with the least
mean size of the errors' logarithms are found on a grid, where every checkpoint on every GPU has the same weight: of
all runs, of all without a model or a GPU, and of each checkpoint alone. Nothing of this is in the catalog:
TensorRT-LLM has vLLM's constants less the gaps between kernels that its launches hide, which are fitted to no run,
and SGLang's runs do not agree (docs/engines.md).
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import silicon
from benchmarks.edited_engine import with_engine
from benchmarks.engine_constants import ENGINES, family
from benchmarks.processes import ROOT
from benchmarks.silicon_layouts import layout
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit

CHANGED = {"layer_us": 13.5, "experts_us": 25.0, "all_reduce_wait": 1.0}
GRID = (np.arange(0.0, 60.0, 2.5), np.arange(0.0, 90.0, 5.0), (1.0, 1.225, 1.45))


@dataclass(frozen=True, slots=True)
class Group:
    """The runs of one checkpoint on one GPU: measured over simulated TPOT and its slopes, in ms."""

    family: str
    model: str
    hardware: str
    measured: Any
    simulated: Any
    slopes: Any

    def error(self, constants: Any) -> float:
        """Return the mean size of the errors' logarithms with these constants less the catalog's."""
        found = np.maximum(self.simulated + self.slopes @ constants, 1e-3)
        return float(np.abs(np.log(found / self.measured)).mean())


def main() -> None:
    """Print the fits."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--engine", choices=tuple(ENGINES), default="trtllm")
    parser.add_argument("--rows", type=int, default=9, help="of each checkpoint on each GPU")
    options = parser.parse_args()
    rows = silicon.covered(silicon.read(options.data))[0]
    groups = list(_groups([row for row in rows if _counts(row, options.engine)], options.rows))
    _print("all", groups, groups)
    for name in sorted({group.family for group in groups}):
        _print(
            f"without {name}",
            [group for group in groups if group.family != name],
            [group for group in groups if group.family == name],
        )
    for name in sorted({group.hardware for group in groups}):
        _print(
            f"without {name}",
            [group for group in groups if group.hardware != name],
            [group for group in groups if group.hardware == name],
        )
    for group in groups:
        _print(f"{group.model} on {group.hardware} alone", [group], [group])


def _counts(row: dict[str, Any], engine: str) -> bool:
    return row["backend"] == engine and silicon.is_recorded(row) and layout(row).data == 1


def _groups(rows: Sequence[dict[str, Any]], most: int) -> Iterable[Group]:
    by_group = defaultdict(list)
    for row in rows:
        by_group[silicon.model_of(row), row["system"], row["precision"]].append(row)
    for (model, hardware, _), members in sorted(by_group.items()):
        members.sort(key=lambda row: (layout(row).tensor, silicon.users(row), row["isl"], row["osl"]))
        places = sorted(set(np.linspace(0, len(members) - 1, most).round().astype(int).tolist()))
        found = [run for place in places if (run := _responses(members[place]))]
        if found:
            measured, simulated, slopes = zip(*found, strict=True)
            yield Group(family(members[0]), model, hardware, *map(np.array, (measured, simulated, slopes)))


def _responses(row: dict[str, Any]) -> tuple[float, float, list[float]] | None:
    """Return the measured and the simulated TPOT, and what a unit of each constant adds to it."""
    edits = [None, *(_setting(**{key: value}) for key, value in CHANGED.items())]
    runs = [silicon.simulate(row, edit=edit) for edit in edits]
    if any(run.problem is not None for run in runs):
        return None
    base, *changed = (run.tpot_ms or 0.0 for run in runs)
    before = _catalog(row)
    slopes = [
        (tpot - base) / (value - before[key])
        for tpot, (key, value) in zip(changed, CHANGED.items(), strict=True)
    ]
    return row["silicon_tpot_ms"], base, slopes


def _setting(**constants: float) -> Edit:
    return with_engine(lambda engine: replace(engine, **constants))  # type: ignore[arg-type]


def _catalog(row: dict[str, Any]) -> dict[str, float]:
    pool = silicon.config(row).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    engine = pool.hardware.engine
    assert engine is not None
    return {key: getattr(engine, key) for key in CHANGED}


def _print(what: str, fitted_to: Sequence[Group], own: Sequence[Group]) -> None:
    if not fitted_to:
        return
    start = np.array([23.5, 5.0, 1.45])  # of every GPU, in the order of CHANGED
    tried = [np.array(each) for each in product(*GRID)]
    best = min(tried, key=lambda each: np.mean([group.error(each - start) for group in fitted_to]))
    before, after = (100 * np.mean([group.error(each - start) for group in own]) for each in (start, best))
    layer, experts, wait = best
    print(
        f"{what}: {layer:g} µs a layer, {experts:g} µs of experts, all-reduces × {wait:g}; "
        f"its own runs {before:.1f} % off with the catalog, {after:.1f} % with these"
    )


if __name__ == "__main__":
    main()
