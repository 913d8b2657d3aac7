"""Fits the time in which TensorRT-LLM launches the kernels of a prompt's step in a dense layer on B200.

``python -m benchmarks.dense_launches [--data DATA]`` prints the fit to each GPU (half a minute on one core). The runs
are InferenceMAX's of Llama-3.1-70B with prompts of 1,024 tokens and up to 32 users, but for those whose script lets
prompts wait for a fuller step. A fit has the least mean size of the logarithms of simulated over measured time to
first token. On B200 kernels are shorter than their launches: a first token takes as long on two devices as on eight.
On H200 they are longer, errors are the same from 250 to 700 µs a layer, and the catalog keeps vLLM's time.

No other dense model was measured, so these runs themselves are compared with vLLM's time. What is fitted here tells
how long a host takes to launch a layer with TensorRT-LLM, relative to vLLM (``relative_to_vllm``).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import hermes_flow as hf
from benchmarks import silicon
from benchmarks.edited_engine import with_engine
from benchmarks.processes import ROOT
from benchmarks.silicon_engines import waits
from benchmarks.silicon_gpus import SIBLINGS, constants_of
from benchmarks.silicon_layouts import users
from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.validation.replay import Edit

TRIED_US = (260.0, 360.0, 460.0, 560.0, 700.0)
STEP_US = 20.0
MOST_USERS = 32
PROMPT = 1024


def main() -> None:
    """Print the least time of a dense layer on each GPU."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    rows = chosen(silicon.read(parser.parse_args().data))
    for gpu in sorted({row["system"] for row in rows}):
        own = [row for row in rows if row["system"] == gpu]
        errors = np.array([_errors(row) for row in own])
        sizes = ", ".join(f"{size:.3f}" for size in np.abs(errors).mean(axis=0))
        print(f"{gpu}, {len(own)} runs: {best_us(errors):.0f} µs; errors of those tried: {sizes}")


def chosen(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs that the fit is made of."""
    return [
        row
        for row in silicon.covered(rows)[0]
        if row["backend"] == "trtllm"
        and silicon.is_recorded(row)
        and row["system"] not in SIBLINGS
        and row["isl"] == PROMPT
        and (load := users(row) or 0) <= MOST_USERS
        and "batch_wait_timeout_iters" not in waits(row, load)
        and silicon.catalog_model(silicon.model_of(row)).experts is None
    ]


def best_us(errors: Any) -> float:
    """Return the launch time with the least mean size of ``errors``, (runs, tried) logarithms by ``TRIED_US``."""

    def size(time_us: float) -> float:
        return float(np.mean([abs(np.interp(time_us, TRIED_US, each)) for each in errors]))

    return float(min(np.arange(TRIED_US[0], TRIED_US[-1] + 1.0, STEP_US), key=size))


def relative_to_vllm(gpu: str) -> float:
    """Return what a dense layer's launches take with TensorRT-LLM on a GPU of the catalog, relative to vLLM's."""
    return _layer_us("tensorrt_llm", gpu) / _layer_us("vllm", gpu)


def left_out(row: dict[str, Any]) -> Edit | None:
    """Return what gives a dense run of TensorRT-LLM the launches of vLLM, or None for any other run."""
    if row["backend"] != "trtllm" or silicon.catalog_model(silicon.model_of(row)).experts is not None:
        return None
    return _launching_in(_layer_us("vllm", constants_of(row["system"])))


@cache
def _layer_us(engine: str, gpu: str) -> float:
    eager = hf.compose([f"engine={engine}", "pipeline=llm"]).engine.overheads[gpu].eager
    assert eager is not None
    return eager.layer_us


def _launching_in(layer_us: float) -> Edit:
    def changed(engine: EngineOverhead) -> EngineOverhead:
        if engine.eager is None:
            return engine
        return replace(engine, eager=replace(engine.eager, layer_us=layer_us))

    return with_engine(changed)


def _errors(row: dict[str, Any]) -> list[float]:
    found = [silicon.simulate(row, edit=_launching_in(time_us)) for time_us in TRIED_US]
    return [float(np.log1p(each.errors[0])) for each in found]


if __name__ == "__main__":
    main()
