"""The tables of what serving runs say about constants that were fitted without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks import silicon
from benchmarks.error_text import size, table
from benchmarks.left_out import LeftOut
from benchmarks.silicon_gpus import SIBLINGS
from hermes_flow.validation.compare import Compared
from hermes_flow.validation.description import SIMULATOR

_MEANS = ("e2e", "tpot", "ttft")


def headline(
    models: Sequence[LeftOut],
    sizes: Sequence[LeftOut],
    blank: Sequence[Compared],
    elsewhere: Sequence[Compared],
    runs: Sequence[Compared],
) -> str:
    """Return the errors of what was left out of the fit, and then those of what was fitted.

    ``blank`` are the runs on H100 without any measurement of it, and ``elsewhere`` those on other GPUs.
    """
    rows = []
    for title, left in (("a model", models[1:]), ("a size of tensor parallelism", sizes)):
        count, means = _means(left)
        rows.append([f"{title} left out, on H100", str(count), *(size(means[name]) for name in _MEANS)])
    for title, found in (
        ("the H100 itself left out", blank),
        ("GPUs that nothing was fitted to", elsewhere),
        ("fitted, on H100", runs),
    ):
        rows.append([title, str(len(found)), *(size(float(np.mean(_sizes(found, name)))) for name in _MEANS)])
    return table(["runs of vLLM 0.15", "runs", "E2E", "TPOT", "TTFT"], rows)


def computed(found: Sequence[silicon.Found], engines: Mapping[str, str]) -> str:
    """Return the median errors of the benchmark runs whose method is published, which all compute their prompts."""
    done = [each for each in found if each.problem is None and silicon.is_recorded(each.row)]
    rows = []
    for unfitted, where in ((True, ", on B300, which nothing was fitted to"), (False, "")):
        own = [each for each in done if is_unfitted(each) == unfitted]
        for engine, name in engines.items():
            for kind in ("dense", "mixture"):
                members = [each for each in own if each.group[2:] == (engine, kind)]
                if members:
                    ttft, tpot = 100 * np.median(np.abs([each.errors for each in members]), axis=0)
                    cells = str(len(members)), size(float(tpot)), size(float(ttft))
                    rows.append([f"{name}, {kind}{where}", *cells])
    return table(["engine and kind of model", "runs", "TPOT", "TTFT"], rows)


def is_unfitted(each: silicon.Found) -> bool:
    """Return whether a run is on a GPU of which neither kernels nor runs were used for any constant."""
    return each.row["system"] in SIBLINGS


def constants(models: Sequence[LeftOut], sizes: Sequence[LeftOut]) -> str:
    """Return the constants that were fitted without a model or a size, and the errors of what was left out."""
    rows = []
    for kind, found in (("a model", models[1:]), ("a size", sizes)):
        rows += [_row(each) for each in sorted(found, key=lambda each: -each.e2e)]
        count, means = _means(found)
        title = f"**mean with {kind} left out**"
        rows.append([title, str(count), *[""] * 6, *(size(means[name]) for name in ("tpot", "e2e", "ttft"))])
    head = ["a layer", "of experts", "wait", "bandwidth", "sort", "penalty"]
    return table(["left out", "runs", *head, "TPOT", "E2E", "TTFT"], [*rows, _row(models[0])])


def _row(left: LeftOut) -> list[str]:
    return [
        left.name,
        str(left.runs),
        *(f"{left.constants[place]:.1f} µs" for place in (0, 1)),
        f"{left.constants[2]:.2f}",
        f"{left.constants[3]:.3f}",
        *(f"{left.constants[place]:.0f} µs" for place in (4, 5)),
        *(size(each) for each in (left.tpot, left.e2e, left.ttft)),
    ]


def _means(left: Sequence[LeftOut]) -> tuple[int, dict[str, float]]:
    """Return how many runs were left out, and the mean sizes of their errors."""
    count = sum(each.runs for each in left)
    return count, {
        name: sum(each.runs * float(getattr(each, name)) for each in left) / count for name in _MEANS
    }


def _sizes(runs: Sequence[Compared], metric: str) -> list[float]:
    """Return the sizes of the errors of the mean of a metric."""
    return [
        abs(row.error_percent)
        for run in runs
        for row in run.rows
        if (row.metric, row.statistic, row.simulator) == (metric, "mean", SIMULATOR)
    ]
