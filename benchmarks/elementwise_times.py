"""Fits the rate at which vLLM's norms, activations and rotary embeddings move their values on B200.

``python -m benchmarks.elementwise_times [--data DATA]`` prints the fit to all runs, and those without a model (about
ten seconds on one core). The runs are InferenceMAX's of vLLM on B200 with prompts of 8,192 tokens, whose kernels are
longer than their launches, and up to 32 users. A fit has the least mean size of the logarithms of simulated over
measured time to first token, where every model has the same weight.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import silicon
from benchmarks.edited_engine import with_engine
from benchmarks.processes import ROOT
from benchmarks.silicon_gpus import constants_of
from hermes_flow.validation.replay import Edit

TRIED = (0.15, 0.2, 0.25, 0.3, 0.4, 0.6)  # of the bandwidth
MOST_USERS = 32
PROMPT = 8192
FITTED_ON = ("vllm", "b200_sxm")
WITHOUT_MODEL = {
    "gpt_oss_120b": 0.365,
    "kimi_k2_5": 0.33,
    "kimi_k2_6_nvfp4": 0.31,
    "llama3_70b": 0.45,
    "minimax_m2_5": 0.43,
    "minimax_m2_5_nvfp4": 0.365,
}  # what main prints; the catalog has the fit to all runs


@dataclass(frozen=True, slots=True)
class Tried:
    """The model of one run, and the logarithms of its errors with each of ``TRIED``."""

    model: str
    errors: tuple[float, ...]


def main() -> None:
    """Print the fits, as fractions of the memory bandwidth."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    tried = [found for row in chosen(silicon.read(parser.parse_args().data)) if (found := _tried(row))]
    print(f"all {len(tried)} runs: {best_share(tried):.3f}")
    for name in sorted({each.model for each in tried}):
        others = [each for each in tried if each.model != name]
        print(f"without the {len(tried) - len(others)} runs of {name}: {best_share(others):.3f}")


def chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs that the fit is made of."""
    return [
        row
        for row in silicon.covered(rows)[0]
        if (row["backend"], row["system"]) == FITTED_ON
        and silicon.is_recorded(row)
        and row["isl"] == PROMPT
        and (silicon.users(row) or 0) <= MOST_USERS
    ]


def best_share(tried: Iterable[Tried]) -> float:
    """Return the fraction of the bandwidth with the least mean size of errors, to 0.005.

    Times are in proportion to its inverse, so errors are interpolated over that.
    """
    groups = defaultdict(list)
    for each in tried:
        groups[each.model].append(each.errors[::-1])
    fine = np.arange(TRIED[0], TRIED[-1] + 0.001, 0.005)
    inverse = [1.0 / share for share in TRIED[::-1]]
    sizes = [
        np.mean([np.abs(np.interp(1.0 / fine, inverse, errors)) for errors in members], axis=0)
        for members in groups.values()
    ]
    return float(fine[np.mean(sizes, axis=0).argmin()])


def moving_at(share: float) -> Edit:
    """Return what sets the fraction of the bandwidth at which elementwise kernels move their values."""
    return with_engine(lambda engine: replace(engine, elementwise=share))


def left_out(row: dict[str, Any]) -> Edit | None:
    """Return what gives a run the rate that is fitted without its model, or None for a run without such a fit."""
    if (row["backend"], constants_of(row["system"])) != FITTED_ON:
        return None
    share = WITHOUT_MODEL.get(silicon.model_of(row))
    return None if share is None else moving_at(share)


def _tried(row: dict[str, Any]) -> Tried | None:
    found = [silicon.simulate(row, edit=moving_at(share)) for share in TRIED]
    if any(each.problem is not None for each in found):
        return None
    return Tried(silicon.model_of(row), tuple(float(np.log1p(each.errors[0])) for each in found))


if __name__ == "__main__":
    main()
