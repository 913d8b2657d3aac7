"""Fits the times in which the engines launch the kernels of a prompt's step in a layer of experts.

``python -m benchmarks.engine_constants [--data DATA]`` prints the fits to all runs, and those without a model and
without a GPU, and writes them to ``benchmarks/engine_constants.csv`` (four minutes on one core). The catalog has the
fits to all runs; whatever is compared with one of these runs takes the fits without its model or its GPU from there.

The runs are InferenceMAX's of mixtures with prompts of 1,024 tokens, whose kernels are shorter than their launches,
and up to 32 users. With vLLM some CUDA graphs hold such prompts; runs of gpt-oss-120b with 8,192 tokens on 4 and 8
B200 are taken in their place. A fit has the least mean size of the logarithms of simulated over measured time to
first token, where every model on every GPU has the same weight. Each GPU has a time of its own, which is drawn
towards the mean of those of the other GPUs: in the mean of logarithms it counts once for each model that was
measured on it, and they count once. For a GPU without runs their mean holds. Where an engine has runs of models with
a kind of layer and of others, what such a layer takes more is fitted as well, once for all GPUs: of TensorRT-LLM and
vLLM latent attention, and of SGLang the delta rule. Where only others are left of the runs, a layer with latent
attention takes the mean of logarithms of what theirs take and of what a layer of SGLang takes, which launches the
kernels of prompts from PyTorch one by one as well, and whose models nearly all have latent attention.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import silicon
from benchmarks.dense_launches import relative_to_vllm
from benchmarks.edited_engine import with_engine
from benchmarks.left_out import without
from benchmarks.processes import ROOT
from benchmarks.silicon_gpus import BLACKWELL, SIBLINGS, constants_of
from benchmarks.silicon_layouts import LONG_PROMPT, layout, users
from benchmarks.silicon_settings import settings
from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.config.mixer_shape import delta_scans
from hermes_flow.config.schema import Model
from hermes_flow.validation.replay import Edit

TABLE = ROOT / "benchmarks" / "engine_constants.csv"
ENGINES = {"sglang": "sglang", "vllm": "vllm", "trtllm": "tensorrt_llm"}  # by the name that the rows have
FAMILIES = {"moonshotai/Kimi-K2.5": "kimi", "MiniMaxAI/MiniMax-M2.5": "minimax"}
TRIED_US = (300.0, 1000.0, 1540.0, 2400.0, 3300.0, 4300.0, 5500.0)
STEP_US = 20.0
VLLM_US = 1540.0  # of experts in Triton with vLLM, where nothing says what an engine's own is
TRITON_ON = ("h200_sxm",)  # GPUs on which TensorRT-LLM's runs of gpt-oss have Triton's experts
MOST_US = 3000.0  # that a kind of layer which is fitted apart may take more
MOST_USERS = 32
PROMPT = 1024
APART = {"sglang": "delta_rule_us", "trtllm": "latent_us", "vllm": "latent_us"}  # kinds of layers
ALL, OTHERS = "nothing", "others"


@dataclass(frozen=True, slots=True)
class Launches:
    """The least time of a layer of experts without CUDA graphs, and what two kinds of layers add to it, in µs."""

    experts_us: float
    latent_us: float = 0.0
    delta_rule_us: float = 0.0


@dataclass(frozen=True, slots=True)
class Tried:
    """The model and GPU of one run, and the logarithms of its errors with each of ``TRIED_US``.

    ``apart`` is the share of its layers that are of the kind which is fitted apart.
    """

    family: str
    model: str
    hardware: str
    apart: float
    errors: tuple[float, ...]


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    rows = silicon.read(parser.parse_args().data)
    lines = []
    like: dict[str, float] = {}  # what a layer takes on SGLang, by what was left out
    plain: dict[str, dict[str, float]] = {}  # and a layer of TensorRT-LLM by vLLM's, by GPU
    for engine in ENGINES:
        tried = [found for row in chosen(rows, engine) if (found := _tried(row, APART[engine]))]
        print(f"{engine}: {len(tried)} runs")
        for left_out, fitted in _fits(tried, APART[engine], like, plain if engine == "trtllm" else {}):
            like.setdefault(left_out, fitted[OTHERS].experts_us)
            if engine == "vllm":
                plain[left_out] = _like_vllm(fitted)
            for hardware, launches in fitted.items():
                text = ", ".join(f"{each:,.0f}" for each in astuple(launches))
                print(f"  without {left_out}, {hardware}: {text} µs")
                lines.append([engine, left_out, hardware, *(f"{each:.0f}" for each in astuple(launches))])
    with TABLE.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["engine", "left_out", "hardware", *(each.name for each in fields(Launches))])
        table.writerows(lines)


def chosen(rows: Sequence[dict[str, Any]], engine: str) -> list[dict[str, Any]]:
    """Return the runs that the fit of an engine is made of."""
    return [
        row
        for row in silicon.covered(rows)[0]
        if row["backend"] == engine
        and silicon.is_recorded(row)
        and row["system"] not in SIBLINGS
        and _is_launched(row)
        and (users(row) or 0) <= MOST_USERS
        and layout(row).data == 1  # ranks of attention launch their experts apart
        and silicon.catalog_model(silicon.model_of(row)).experts is not None
    ]


def _is_launched(row: dict[str, Any]) -> bool:
    """Return whether the kernels of a prompt are shorter than their launches, and in no CUDA graph.

    Runs of vLLM with Triton's experts are left out, which the catalog has from runs on H100.
    """
    if row["backend"] != "vllm":
        return bool(row["isl"] == PROMPT)
    told = settings(row, users(row) or 1)
    if told.triton:
        return False
    if told.captured is None:
        return bool(row["isl"] == PROMPT)
    # gpt-oss-120b, whose experts are in mxfp4: eight and four of these devices take less than 1 ms a layer
    fast = row["system"] in BLACKWELL and layout(row).devices >= 4 and silicon.model_of(row) == "gpt_oss_120b"
    return bool(row["isl"] == LONG_PROMPT and fast)


def fit(
    tried: Sequence[Tried],
    apart: str = "latent_us",
    latent_elsewhere_us: float | None = None,
    plain_us: Mapping[str, float] | None = None,
) -> dict[str, Launches]:
    """Return the launches by GPU, with those of GPUs without runs under ``others``; ``apart`` is fitted once for all.

    Runs without latent attention are drawn towards ``latent_elsewhere_us``, the whole time of a layer with it on
    another engine. Where all runs have layers of the kind, others take ``plain_us``, by GPU.
    """
    curves = _curves(tried)
    shares = {share for _, share, _ in curves}
    hardware = sorted({gpu for gpu, _, _ in curves})
    more, own = 0.0, {gpu: (plain_us or {}).get(gpu, VLLM_US) for gpu in hardware}
    if 0.0 not in shares:
        more = _least(
            lambda extra: sum(curve(own[gpu] + extra * share) for gpu, share, curve in curves), MOST_US
        )
    else:
        most = MOST_US if len(shares) > 1 else 0.0
        more = _least(lambda extra: sum(_of_gpu(curves, gpu, extra)[0] for gpu in hardware), most)
        own = {gpu: _of_gpu(curves, gpu, more)[1] for gpu in hardware}
    models = {gpu: len({each.family for each in tried if each.hardware == gpu}) for gpu in hardware}
    found = dict(own) if 0.0 not in shares else {gpu: _drawn(own, gpu, models[gpu]) for gpu in hardware}
    found[OTHERS] = _mean(own.values())
    if apart == "latent_us" and shares == {0.0} and latent_elsewhere_us is not None:
        more = max(0.0, _mean((found[OTHERS], latent_elsewhere_us)) - found[OTHERS])
    return {gpu: Launches(_rounded(time_us), **{apart: _rounded(more)}) for gpu, time_us in found.items()}


def launching_in(launches: Launches) -> Edit:
    """Return what sets the launches of a step without CUDA graphs."""

    def changed(engine: EngineOverhead) -> EngineOverhead:
        assert engine.eager is not None
        return replace(engine, eager=replace(engine.eager, **asdict(launches)))

    return with_engine(changed)


def left_out(row: dict[str, Any]) -> Edit | None:
    """Return what gives a run the launches that are fitted without its model, or None where none are fitted."""
    if row["backend"] not in ENGINES:
        return None
    model = silicon.catalog_model(silicon.model_of(row))
    found = fitted().get((row["backend"], family(row)))
    if model.experts is None or found is None:
        return None
    return launching_in(found.get(constants_of(row["system"]), found[OTHERS]))


def gpu_left_out(row: dict[str, Any]) -> Edit:
    """Return what gives a run the constants that are made without everything that was measured on its GPU."""
    if row["backend"] not in ENGINES or silicon.catalog_model(silicon.model_of(row)).experts is None:
        return without
    table = fitted()
    found = table.get((row["backend"], row["system"]), table[row["backend"], ALL])
    launching = launching_in(found[OTHERS])
    return lambda config: launching(without(config))


@cache
def fitted() -> dict[tuple[str, str], dict[str, Launches]]:
    """Return the launches of the table by engine and what they were fitted without, and by GPU."""
    found: dict[tuple[str, str], dict[str, Launches]] = defaultdict(dict)
    with TABLE.open(encoding="utf-8", newline="") as file:
        for entry in csv.DictReader(file):
            launches = Launches(*(float(entry[each.name]) for each in fields(Launches)))
            found[entry["engine"], entry["left_out"]][entry["hardware"]] = launches
    return dict(found)


def family(row: dict[str, Any]) -> str:
    """Return the model of a row, whatever the precision of its checkpoint."""
    path = row["model_path"]
    return "deepseek" if "DeepSeek" in path else FAMILIES.get(path) or silicon.model_of(row)


def _tried(row: dict[str, Any], apart: str) -> Tried | None:
    found = [silicon.simulate(row, edit=launching_in(Launches(time_us))) for time_us in TRIED_US]
    if any(each.problem is not None for each in found):
        return None
    errors = tuple(float(np.log1p(each.errors[0])) for each in found)
    name = silicon.model_of(row)
    return Tried(family(row), name, row["system"], _share(silicon.catalog_model(name), apart), errors)


def _share(model: Model, apart: str) -> float:
    """Return the share of a model's layers that launch longer."""
    if apart == "latent_us":
        return float(model.latent_attention is not None)
    return sum(each.layers for each in delta_scans(model, 1, model.layers)) / model.layers


def _fits(
    tried: Sequence[Tried],
    apart: str,
    latent_elsewhere: Mapping[str, float],
    plain: Mapping[str, Mapping[str, float]],
) -> Iterable[tuple[str, dict[str, Launches]]]:
    """Yield what was left out and the fit without it."""

    def without_runs(name: str, runs: Sequence[Tried]) -> tuple[str, dict[str, Launches]]:
        like = latent_elsewhere.get(name, latent_elsewhere.get(ALL))
        return name, fit(runs, apart, like, plain.get(name, plain.get(ALL)))

    yield without_runs(ALL, tried)
    for name in sorted({each.family for each in tried}):
        yield without_runs(name, [each for each in tried if each.family != name])
    for name in sorted({each.hardware for each in tried}):
        yield without_runs(name, [each for each in tried if each.hardware != name])


def _like_vllm(fitted: Mapping[str, Launches]) -> dict[str, float]:
    """Return by GPU what a layer of experts without latent attention takes with TensorRT-LLM, told by vLLM's."""
    return {
        gpu: (VLLM_US if gpu in TRITON_ON else launches.experts_us) * relative_to_vllm(gpu)
        for gpu, launches in fitted.items()
        if gpu != OTHERS
    }


def _curves(tried: Sequence[Tried]) -> list[tuple[str, float, Callable[[float], float]]]:
    """Return GPU, share of layers apart, and mean size of the errors by launch time, of every model on every GPU."""
    groups = defaultdict(list)
    for each in tried:
        groups[each.hardware, each.apart, each.model].append(each.errors)

    def size_of(members: Sequence[tuple[float, ...]]) -> Callable[[float], float]:
        return lambda time_us: float(np.mean([abs(np.interp(time_us, TRIED_US, each)) for each in members]))

    return [(gpu, share, cache(size_of(members))) for (gpu, share, _), members in groups.items()]


def _of_gpu(
    curves: Sequence[tuple[str, float, Callable[[float], float]]], gpu: str, extra: float
) -> tuple[float, float]:
    """Return the least size of the errors on a GPU, and the launch time that has it."""

    def size(time_us: float) -> float:
        return sum(curve(time_us + extra * share) for of, share, curve in curves if of == gpu)

    best = _least(size, TRIED_US[-1], TRIED_US[0])
    return size(best), best


def _least(size: Callable[[float], float], most: float, least: float = 0.0) -> float:
    return float(min(np.arange(least, most + 1.0, STEP_US), key=size))


def _drawn(own: dict[str, float], gpu: str, models: int) -> float:
    """Return the time of a GPU, drawn towards the mean of those of the others."""
    others = [time_us for name, time_us in own.items() if name != gpu]
    if not others:
        return own[gpu]
    return float(np.exp((models * np.log(own[gpu]) + np.log(_mean(others))) / (models + 1)))


def _mean(times_us: Iterable[float]) -> float:
    return float(np.exp(np.mean(np.log(list(times_us)))))


def _rounded(time_us: float) -> float:
    return STEP_US * round(time_us / STEP_US)


if __name__ == "__main__":
    main()
