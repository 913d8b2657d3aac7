"""Compares all tables over versions of Python, packages and processors: ``python -m benchmarks.everywhere``.

The configurations are composed anew in each place, so that everything is compared which is drawn, looked up or fitted
on the way; the saved runs of ``benchmarks.unchanged`` come to them. Each place is a process: this Python with other
settings of the environment, and every Python that is named. Nothing is written, and nothing is compared with files.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.processes import ROOT

INPUTS = "benchmarks/unchanged/inputs"
SMALL = ("workload=synthetic", "workload.requests=60", "workload.rate_per_s=2")
# By the names of NumPy 2.0 and of 2.4; it warns of those that it does not know.
AVX512 = "AVX512_SPR AVX512_ICL AVX512_CNL AVX512_CLX AVX512_SKX AVX512CD AVX512F X86_V4"
# What the processor, its number of cores and the order of sets may change.
SETTINGS: dict[str, dict[str, str]] = {
    "as it is": {},
    "another hash seed": {"PYTHONHASHSEED": "77"},
    "one thread": {"POLARS_MAX_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    "seven threads": {"POLARS_MAX_THREADS": "7"},
    "NumPy without AVX-512": {"NPY_DISABLE_CPU_FEATURES": AVX512},
    "NumPy without AVX2": {"NPY_DISABLE_CPU_FEATURES": f"{AVX512} X86_V3 AVX2 FMA3"},
    "BLAS for another processor": {"OPENBLAS_CORETYPE": "Prescott"},
    "a math library without FMA": {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-FMA,-AVX2,-AVX2_Usable,-FMA_Usable"},
}

ARRIVALS = (
    "{process: gamma, cv: 0.5}",
    "{process: weibull, cv: 1.7}",
    "{process: normal, cv: 0.4}",
    "{process: burst, on_s: 3, off_s: 5, peak: 2}",
    "uniform",
)
LENGTHS = (
    "{distribution: lognormal, mean: 300, cv: 1.5}",
    "{distribution: exponential, mean: 200}",
    "{distribution: normal, mean: 375, std: 60, min: 8}",
    "{distribution: quantiles, points: {0: 1, 0.5: 100, 0.9: 400, 1: 2000}}",
)


def configurations() -> dict[str, tuple[str, ...]]:
    """Return the overrides of all composed runs by name: every pipeline, and the settings that draw or fit."""
    pipelines = sorted(path.stem for path in (ROOT / "conf" / "pipeline").glob("*.yaml"))
    layouts = ("hybrid", "hgx", "rack")
    found = {
        f"pipeline {name}": (f"pipeline={name}", f"cluster={layouts[place % 3]}", *SMALL)
        for place, name in enumerate(pipelines)
    }
    for place, arrivals in enumerate(ARRIVALS):
        lengths = LENGTHS[place % len(LENGTHS)]
        found[f"drawn {place}"] = (
            *SMALL,
            f"workload.arrivals={arrivals}",
            f"workload.input_tokens={lengths}",
        )
    drawn_pause = "workload.think_time_s={distribution: lognormal, mean: 2, cv: 1}"
    plain = ("pipeline=llm", *SMALL)
    found |= {
        "sessions": ("workload=sessions", "workload.sessions=30", drawn_pause, "workload.system_prompts=6",
                     "workload.system_prompt_skew=0.7", "cluster.pools.llm.prefix_cache=true"),
        "reused KV": ("pipeline=kv_reuse", "cluster=kv_tiers", *SMALL, "pipeline.stages.recall.skew=1.1"),
        "pause": (*plain, "model=qwen3_14b", "hardware=h200_sxm", "slo=chat"),
        "mixture": (*plain, "model=deepseek_v3", "hardware=h200_sxm", "cluster.pools.llm.data_parallel=8",
                    "cluster.pools.llm.expert_parallel=true"),
        "skewed mixture": (*plain, "model=mixtral_8x7b", "cluster.pools.llm.tensor_parallel=2",
                           "cluster.pools.llm.expert_parallel=true", "model.experts.routing_skew=0.8"),
        "linear attention": (*plain, "model=qwen3_5_27b", "hardware=h100_sxm"),
        "TPU": (*plain, "hardware=tpu_v6e", "model=llama3_8b"),
        "two nodes": (*plain, "model=llama3_405b", "cluster.pools.llm.tensor_parallel=16"),
        "SGLang": (*plain, "engine=sglang", "slo=chat"),
        "TensorRT-LLM": (*plain, "engine=tensorrt_llm"),
        "prices": (*plain, "prices=neocloud", "cluster.pools.llm.count=3", "cluster.routing=power_of_two"),
        "trace": ("workload=azure_code", "workload.requests=60", "prices=hyperscaler", "slo=chat"),
        "kernels": (*plain, "cost=kernels", f"cost.path={INPUTS}/operators"),
        "layers": ("cost=kernels", f"cost.path={INPUTS}/layers", "cost.format=layers", *SMALL),
        "graph index": ("pipeline=rag", "cluster=rag", *SMALL, "pipeline.stages.search.index=hnsw",
                        "~pipeline.stages.search.centroids", "~pipeline.stages.search.probes",
                        "~pipeline.stages.search.vectors_per_probe", "~pipeline.stages.search.code_bytes",
                        "+pipeline.stages.search.vectors=500000", "+pipeline.stages.search.ef_search=128",
                        "hardware@cluster.pools.retrieval.hardware=sapphire_rapids",
                        "cluster.pools.retrieval.hardware.retrieval.levels.memory.walk_ns=110"),
    }  # fmt: skip
    return found


def composed(name: str) -> dict[str, Any]:
    """Compose and run one configuration; returns the fingerprints of its tables, texts and error bars."""
    import hermes_flow as hf
    from benchmarks.fingerprints import fingerprints
    from hermes_flow.errors import HermesFlowError
    from hermes_flow.report.console import run_summary

    try:
        with contextlib.chdir(ROOT):
            program = hf.compile(hf.compose([*configurations()[name], "output.steps=true"]))
            result = hf.simulate(program)
    except HermesFlowError as error:
        return {"failed": str(error)}
    found: dict[str, Any] = dict(fingerprints(result, steps=True))
    texts = {"program": str(program), "error": json.dumps(result.summary.get("error"))}
    calm = {**result.summary, "engine": {**result.summary["engine"], "wall_s": 1.0, "cpu_s": 1.0}}
    texts["console"] = run_summary(calm, program)
    return found | {key: hashlib.sha256(text.encode()).hexdigest() for key, text in texts.items()}


def many_draws() -> str:
    """Return a hash of many draws, a fit and long tables of floats: a last bit shows there sooner than in a run."""
    import numpy as np
    import yaml

    import hermes_flow as hf
    from hermes_flow.cost.fitted.least_squares import Pulls, least_relative
    from hermes_flow.workload.arrivals import parse_arrivals
    from hermes_flow.workload.lengths import parse_distribution
    from hermes_flow.workload.streams import stream

    digest = hashlib.sha256()
    for lengths in LENGTHS:
        drawn = parse_distribution(yaml.safe_load(lengths), "lengths", whole=False)
        digest.update(drawn.sample(50_000, stream(1, lengths), whole=False).tobytes())
    for arrivals in ARRIVALS:
        process: Any = parse_arrivals(yaml.safe_load(arrivals), "arrivals")
        digest.update(process.instants_s(50_000, 3.0, stream(1, arrivals)).tobytes())
    sizes = stream(1, "sizes").random((300, 9)) ** 2
    times = np.add.accumulate(sizes, axis=1)[:, -1] + stream(1, "times").random(300)
    digest.update(least_relative(sizes, times, Pulls.none(9)).tobytes())
    for name in ("mixture", "skewed mixture"):
        for pool in hf.compile(hf.compose(configurations()[name])).pools:
            digest.update(repr((pool.client, pool.energy)).encode())
    return digest.hexdigest()


def all_runs(only: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fingerprints of saved and composed runs in this process: of all, or of those that are named."""
    from benchmarks import unchanged

    found: dict[str, Any] = {"many draws": {"hash": many_draws()}}
    if not only:
        found |= {f"saved {name}": unchanged.tables(name) for name in unchanged.names()}
    return found | {name: composed(name) for name in only or configurations()}


def places(pythons: Sequence[str]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield the name, the Python and the settings of every place."""
    for name, setting in SETTINGS.items():
        yield name, sys.executable, setting
    for python in pythons:
        yield python, python, {}


def in_place(python: str, setting: dict[str, str], only: Sequence[str] = ()) -> dict[str, Any]:
    """Return what another process finds; raises RuntimeError where it fails."""
    environment = {**os.environ, "PYTHONHASHSEED": "0", **setting, "PYTHONPATH": str(ROOT)}
    command = [python, "-m", "benchmarks.everywhere", "--here", *only]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{python} ended with status {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def differences(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return a line for every run that differs, with the tables and columns that do."""
    lines = []
    for name in dict.fromkeys((*first, *other)):
        before, now = first.get(name, {}), other.get(name, {})
        tables = [table for table in dict.fromkeys((*before, *now)) if before.get(table) != now.get(table)]
        if tables:
            lines.append(f"{name}: {', '.join(_words(table, before, now) for table in tables)}")
    return lines


def main() -> int:
    """Run what the arguments ask for; returns 1 if any place differs from the first, else 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.everywhere", description=__doc__)
    parser.add_argument(
        "--here", nargs="*", metavar="RUN", help="print the fingerprints of this process as JSON"
    )
    parser.add_argument("--python", nargs="*", default=[], help="other Pythons, each with its own packages")
    options = parser.parse_args()
    if options.here is not None:
        print(json.dumps(all_runs(options.here)))
        return 0
    first: dict[str, Any] | None = None
    differing = 0
    for name, python, setting in places(options.python):
        found = in_place(python, setting)
        first = found if first is None else first
        lines = differences(first, found)
        differing += bool(lines)
        failed = [run for run, tables in found.items() if "failed" in tables]
        print(f"{name}: {len(found)} runs, {len(lines)} differ, {len(failed)} failed", flush=True)
        for line in (*lines, *(f"{run} failed: {found[run]['failed']}" for run in failed)):
            print(f"  {line}", flush=True)
    return int(differing > 0)


def _words(table: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = before.get(table), now.get(table)
    if not (isinstance(old, dict) and isinstance(new, dict) and "columns" in old and "columns" in new):
        return table
    columns = [name for name in old["columns"] if old["columns"][name] != new["columns"].get(name)]
    return f"{table} ({', '.join(columns)})"


if __name__ == "__main__":
    sys.exit(main())
