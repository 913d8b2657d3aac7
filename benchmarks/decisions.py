"""Tests capacity searches against grids of whole runs: ``python -m benchmarks.decisions [grid | stops]``.

``grid`` searches the capacity of 20 random configurations, and simulates the whole run at every rate of a fine grid.
Configurations whose whole grid meets the SLO, or misses it, are left out.
A search is right if its value is within one step of the first rate of the grid that misses the SLO. Where verdicts
alternate, the answer may lie further up, but not beyond the last rate that meets it; or further down, if the whole
run also misses the SLO at the rate that the search saw to miss it. In both cases the search itself must say that the
verdicts are not monotone. It prints the CPU time of both. ``stops``
compares the verdict of a run that ends early with that of the whole run, on 300 random cases whose bounds lie near
what the run gives. Both exit with 1 if one is wrong. Some minutes; the output is kept in
docs/capacity.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

import hermes_flow as hf
from benchmarks.reliefs import random_overrides
from hermes_flow.config.schema import SLO
from hermes_flow.errors import HermesFlowError
from hermes_flow.planning.keys import with_value
from hermes_flow.planning.verdict import judge

STEP = 1.04  # from one rate of the grid to the next
REACH = 8.0  # the grid goes from 1/8 to 8 times the rate of the configuration
KEY = "workload.rate_per_s"
MOST_OF_THE_COST = 0.2
METRICS = (("ttft", "p90"), ("ttft", "p99"), ("tpot", "p50"), ("tpot", "p90"), ("e2e", "p50"), ("e2e", "p90"))


def main() -> int:
    """Run one of the checks, or both."""
    parser = argparse.ArgumentParser(prog="benchmarks.decisions", description=main.__doc__)
    parser.add_argument("check", nargs="?", choices=("grid", "stops"))
    parser.add_argument("--first", type=int, default=0, help="the seed of the first configuration")
    parser.add_argument("--grids", type=int, default=20)
    parser.add_argument("--cases", type=int, default=300)
    options = parser.parse_args()
    wrong = 0
    if options.check != "stops":
        wrong += grids(options.grids, options.first)
    if options.check != "grid":
        wrong += stops(options.cases, options.first)
    return int(wrong > 0)


def configurations(first: int) -> Iterator[tuple[int, hf.Config]]:
    """Yield random configurations with a bound on one of their percentiles, near the value at their rate."""
    seed = first
    while True:
        rng = np.random.default_rng(seed)
        overrides = random_overrides(rng)
        metric, percentile = METRICS[int(rng.integers(len(METRICS)))]
        try:
            config = hf.compose([*overrides, "slo=none"])
            value_s = hf.simulate(hf.compile(config)).summary[f"{metric}_s"][percentile]
        except HermesFlowError:
            value_s = None
        if value_s:
            limit_ms = 1e3 * value_s * float(rng.uniform(0.6, 1.6))
            yield seed, replace(config, slo=replace(SLO("near"), **{f"{metric}_ms": {percentile: limit_ms}}))
        seed += 1


@dataclass(frozen=True, slots=True)
class Grid:
    """The verdicts of a grid: the first rate that misses the SLO, the last that meets it, its end, the CPU time."""

    first_missed: float
    last_met: float
    last: float
    cpu_s: float
    runs: int


def grids(count: int, first: int) -> int:
    """Print a line for each configuration; return how many searches are wrong or too dear."""
    wrong = done = 0
    spent, spent_on_grids = 0.0, 0.0
    for seed, config in configurations(first):
        if done == count:
            break
        before = time.process_time()
        found = hf.capacity(config, KEY, seeds=1, error_bar=False)
        cpu_s = time.process_time() - before
        if found.value is None:
            continue
        grid = _grid(config)
        if grid is None:
            continue
        done += 1
        right = _is_right(config, found, grid)
        wrong += not right
        spent, spent_on_grids = spent + cpu_s, spent_on_grids + grid.cpu_s
        print(
            f"{seed:>4} {'right' if right else 'WRONG'} {found.value:.4g} requests/s; grid of {grid.runs}: misses "
            f"from {grid.first_missed:.4g}, meets up to {grid.last_met:.4g}; {cpu_s / grid.cpu_s:.1%} of its time",
            flush=True,
        )
    share = spent / spent_on_grids
    print(
        f"{done - wrong} of {done} searches are within one step of the grid, at {share:.1%} of its CPU time"
    )
    return wrong + (share > MOST_OF_THE_COST)


def _is_right(config: hf.Config, found: hf.Capacity, grid: Grid) -> bool:
    """Return whether a search is within one step of the grid, or says that verdicts alternate where they do."""
    assert found.value is not None
    value = min(found.value, grid.last)
    if grid.first_missed / STEP**2 <= value <= grid.first_missed * STEP:
        return True
    if found.monotone:
        return False
    if value > grid.first_missed:
        return value <= grid.last_met * STEP
    missed = [probe.value for probe in found.probes if not probe.verdict.met and probe.value > found.value]
    return not judge(hf.compile(with_value(config, KEY, min(missed))), early=False).met


def _grid(config: hf.Config) -> Grid | None:
    """Return the verdicts of all rates; None where all of them meet the SLO, or none does."""
    start = float(getattr(config.workload, "rate_per_s"))  # noqa: B009
    steps = int(np.log(REACH) / np.log(STEP))
    rates = [start * STEP**power for power in range(-steps, steps + 1)]
    before = time.process_time()
    met = [judge(hf.compile(with_value(config, KEY, rate)), early=False).met for rate in rates]
    cpu_s = time.process_time() - before
    missed = [rate for rate, good in zip(rates, met, strict=True) if not good]
    good = [rate for rate, good in zip(rates, met, strict=True) if good]
    return Grid(min(missed), max(good), rates[-1], cpu_s, len(rates)) if missed and good else None


def stops(count: int, first: int) -> int:
    """Compare early verdicts with those of whole runs; return how many differ."""
    wrong = early_ends = misses = 0
    for number, (seed, config) in enumerate(configurations(first)):
        if number == count:
            break
        program = hf.compile(config)
        whole, early = judge(program, early=False), judge(program)
        same = early.met == whole.met and set(early.failing) <= set(whole.failing)
        same = same and early.sustained in (None, whole.sustained)
        wrong += not same
        misses += not whole.met
        early_ends += early.share < 1 or (not early.bounds and not early.met)
        if not same:
            verdicts = f"whole {whole.met} {whole.failing}, early {early.met} {early.failing}"
            print(f"{seed:>4} WRONG: {verdicts}", flush=True)
    print(
        f"{count - wrong} of {count} verdicts of runs that may end early are those of the whole run; {misses} cases "
        f"miss their SLO, and {early_ends} of these ended early"
    )
    return wrong


if __name__ == "__main__":
    sys.exit(main())
