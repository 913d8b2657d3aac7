"""Fits the time in which SGLang launches the kernels of a prompt's step in a layer of experts.

``python -m benchmarks.launch_times [--data DATA]`` prints the fit to all runs, and those without a GPU and without a
model (about three minutes on one core). The runs are InferenceMAX's of SGLang with prompts of 1,024 tokens, whose
kernels are shorter than their launches, and up to 32 users. Those of one day count for nothing, because their tokens
seem to have been sent in groups. A fit has the least mean size of the logarithms of simulated over measured time to
first token, where every model on every GPU has the same weight.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.left_out import without
from benchmarks.processes import ROOT
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit

TRIED_US = (1540.0, 2100.0, 2700.0, 3300.0, 3900.0, 4500.0)
MOST_USERS = 32
PROMPT = 1024
IN_GROUPS = "measured=2025-11-10"
WITHOUT_GPU = {
    "h200_sxm": 3240.0,
    "b200_sxm": 3620.0,
}  # what main prints; the catalog has the fit to all runs


@dataclass(frozen=True, slots=True)
class Tried:
    """The model and GPU of one run, and the logarithms of its errors with each of ``TRIED_US``."""

    model: str
    hardware: str
    errors: tuple[float, ...]


def main() -> None:
    """Print the fits, in µs."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    tried = [found for row in chosen(silicon.read(parser.parse_args().data)) if (found := _tried(row))]
    print(f"all {len(tried)} runs: {best_us(tried):,.0f} µs")
    for what, of in (("GPU", lambda each: each.hardware), ("model", lambda each: each.model)):
        _print_without(what, of, tried)


def chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs that the fit is made of."""
    return [
        row
        for row in silicon.covered(rows)[0]
        if row["backend"] == "sglang"
        and silicon.is_recorded(row)
        and row["isl"] == PROMPT
        and (silicon.users(row) or 0) <= MOST_USERS
        and IN_GROUPS not in str(row["silicon_data_source"])
    ]


def best_us(tried: Iterable[Tried]) -> float:
    """Return the launch time with the least mean size of errors, in µs, to 20 µs."""
    groups = defaultdict(list)
    for each in tried:
        groups[each.model, each.hardware].append(each.errors)
    fine = np.arange(TRIED_US[0], TRIED_US[-1] + 1.0, 20.0)
    sizes = [
        np.mean([np.abs(np.interp(fine, TRIED_US, errors)) for errors in members], axis=0)
        for members in groups.values()
    ]
    return float(fine[np.mean(sizes, axis=0).argmin()])


def launching_in(experts_us: float) -> Edit:
    """Return what sets the time of a layer of experts in a step without CUDA graphs."""

    def edit(config: hf.Config) -> hf.Config:
        pool = config.cluster.pools["llm"]
        assert isinstance(pool, LLMPool)
        engine = pool.hardware.engine
        assert engine is not None
        assert engine.eager is not None
        engine = replace(engine, eager=replace(engine.eager, experts_us=experts_us))
        pools = {"llm": replace(pool, hardware=replace(pool.hardware, engine=engine))}
        return replace(config, cluster=replace(config.cluster, pools=config.cluster.pools | pools))

    return edit


def left_out(row: dict[str, Any]) -> Edit | None:
    """Return what gives a run the launches that are fitted to the other GPU, or None for a run without such a fit."""
    launched_us = WITHOUT_GPU.get(row["system"]) if row["backend"] == "sglang" else None
    if launched_us is None or silicon.catalog_model(silicon.model_of(row)).experts is None:
        return None
    return launching_in(launched_us)


def gpu_left_out(row: dict[str, Any]) -> Edit:
    """Return what gives a run the constants that are made without everything that was measured on its GPU."""
    launching = left_out(row)
    return without if launching is None else lambda config: launching(without(config))


def _tried(row: dict[str, Any]) -> Tried | None:
    found = [silicon.simulate(row, edit=launching_in(experts_us)) for experts_us in TRIED_US]
    if any(each.problem is not None for each in found):
        return None
    errors = tuple(float(np.log1p(each.errors[0])) for each in found)
    return Tried(silicon.model_of(row), row["system"], errors)


def _print_without(what: str, of: Callable[[Tried], str], tried: Sequence[Tried]) -> None:
    for name in sorted({of(each) for each in tried}):
        print(f"without the {what} {name}: {best_us([each for each in tried if of(each) != name]):,.0f} µs")


if __name__ == "__main__":
    main()
