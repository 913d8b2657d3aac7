"""Records runs of a real vLLM into a folder: ``python record.py FOLDER [--seconds 40] [RUN…]``.

Each run is a process of its own, so that nothing is left of the run before it. Files: RUN.requests.csv,
RUN.steps.parquet, RUN.stages.parquet, runs.json, runs.csv and probes.parquet (docs/reality.md).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_ALONE_A = {"prompt": [64, 448], "output": [16, 112]}
_ALONE_P = {"prompt": [32, 256], "output": [16, 80], "families": 6}
_ON = {"enable_prefix_caching": True}
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {  # name: (kind, load, engine flags)
    "a_low": ("open_loop", {**_ALONE_A, "seed": 1, "rate": 0.8}, {}),
    "a_mid": ("open_loop", {**_ALONE_A, "seed": 2, "rate": 1.4}, {}),
    "a_kv80": ("open_loop", {**_ALONE_A, "seed": 7, "rate": 2.6}, {"num_gpu_blocks_override": 81}),
    "p_mid": ("open_loop", {**_ALONE_P, "seed": 8, "rate": 1.4}, _ON),
    "a_closed": ("closed_loop", {**_ALONE_A, "seed": 14, "users": 4, "requests": 60, "for_seconds": 40}, {}),
    "sessions": (
        "sessions",
        {"seed": 15, "rate": 0.5, "turns": [2, 5], "prompt": [96, 384], "more": [16, 128]}
        | {"output": [16, 80], "think_s": 2.0},
        _ON,
    ),
    "rag": ("rag", {"seed": 31, "rate": 0.8}, {}),
    "rag_shared": ("rag", {"seed": 32, "rate": 0.7, "shared": True}, {}),
    "agent": ("agent", {"seed": 41, "rate": 0.3}, {}),
    "agent_more": ("agent", {"seed": 42, "rate": 0.5}, {}),
    "cascade": ("cascade", {"seed": 51, "rate": 1.2}, {}),
    "cascade_more": ("cascade", {"seed": 52, "rate": 2.0}, {}),
    "branches": ("branches", {"seed": 61, "rate": 0.4}, {}),
}
_REQUESTS = (
    *("arrival_us", "input_tokens", "output_tokens", "ttft_us", "e2e_us", "start_us", "cached_tokens"),
    *("session", "turn", "family", "shared_tokens"),
)
_STAGES = (
    *("request", "stage", "instance", "core", "ready_us", "start_us", "first_us", "finish_us", "size"),
    *("output_tokens", "cached_tokens"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("runs", nargs="*", default=list(RUNS))
    parser.add_argument("--seconds", type=float, default=40.0, help="of arrivals in a run")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_intermixed_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.one:
        _record(given.runs[0], given.folder, given.seconds)
        return
    for name in given.runs:
        print(f"recording {name}", flush=True)
        command = [
            sys.executable,
            __file__,
            str(given.folder),
            name,
            "--one",
            "--seconds",
            str(given.seconds),
        ]
        subprocess.run(command, check=True, env=_environment())
    _collect(given.folder, given.runs)


def _environment() -> dict[str, str]:
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    vllm = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    quiet = {"HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, **threads, **vllm, **quiet, "PYTHONPATH": path}


def _record(name: str, folder: Path, seconds: float) -> None:
    import alone
    import pipelines
    from step_log import FIELDS
    from toy_models import write_models
    from world import FLAGS, Core, Engine, World, us

    kind, given, flags = RUNS[name]
    load, models = {**given, "seconds": seconds}, folder / "models"
    write_models(models)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    world, rows, stages = World(), [], []
    if kind in pipelines.PIPELINES:
        pipelines.PIPELINES[kind](world, models, load, stages)
    else:
        engine = world.add(Engine("llm", Core("A"), models / "toy", **{**FLAGS, **flags}))
        getattr(alone, kind)(engine, load, rows)
    world.run()
    engines = [player for player in world.players if isinstance(player, Engine)]
    steps = sorted(((each.name, *step) for each in engines for step in each.steps), key=lambda row: row[1])
    columns = ("engine", "start_us", "duration_us", "add_us", *FIELDS)
    _frame(steps, columns, text=("engine", "chunks")).write_parquet(folder / f"{name}.steps.parquet")
    _frame(world.probes, ("clock_us", "memory_us", "product_us")).write_parquet(
        folder / f"{name}.probes.parquet"
    )
    if stages:
        stages.sort(key=lambda row: (row[4], row[0], row[2]))
        _frame(stages, _STAGES, text=("stage", "core")).write_parquet(folder / f"{name}.stages.parquet")
        requests = _of_stages(stages)
    else:
        rows.sort(key=lambda row: row[0]["ready"])
        table = [
            (
                *(
                    us(record["ready"]),
                    len(record["ids"]),
                    record["n"],
                    us(record["first"] - record["ready"]),
                ),
                *(us(record["end"] - record["ready"]), us(record["start"]), record["cached"], *rest),
            )
            for record, *rest in rows
        ]
        requests = _frame(table, _REQUESTS)
    requests.write_csv(folder / f"{name}.requests.csv")
    cores = {player.core.name: player.core for player in world.players}.values()
    about = {
        "part": "B" if stages else "A",
        "load": load,
        "engines": {
            each.name: {"model": each.model, "flags": each.flags, "limits": each.scheduler.limits}
            for each in engines
        },
        "cores": {
            core.name: {
                "busy_s": core.busy,
                "until_s": core.clock,
                "players": [player.name for player in world.players if player.core is core],
            }
            for core in cores
        },
    }
    if stages:
        about["pipeline"] = kind
    (folder / f"{name}.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    for each in engines:
        each.close()


def _frame(rows: list[Any], columns: tuple[str, ...], text: tuple[str, ...] = ()) -> Any:
    import polars as pl

    schema = {name: pl.String if name in text else pl.Int64 for name in columns}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _of_stages(stages: list[tuple[Any, ...]]) -> Any:
    """Return a row per request: its arrival, its tokens, and its times from there."""
    by_request: dict[int, list[tuple[Any, ...]]] = {}
    for stage in stages:
        by_request.setdefault(stage[0], []).append(stage)
    rows = []
    for number, own in by_request.items():
        calls = sorted((stage for stage in own if stage[6] is not None), key=lambda stage: stage[7])
        arrival = min(stage[4] for stage in own)
        written = sum(call[9] for call in calls)
        times = (calls[-1][6] - arrival, max(stage[7] for stage in own) - arrival)
        rows.append((arrival, calls[-1][8], written, *times, len(calls), number))
    columns = ("arrival_us", "input_tokens", "output_tokens", "ttft_us", "e2e_us", "llm_calls", "request")
    return _frame(sorted(rows), columns)


def _collect(folder: Path, names: list[str]) -> None:
    """Write what all runs have in common: runs.json, runs.csv and probes.parquet."""
    import polars as pl

    about = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in names}
    (folder / "runs.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    probes = [
        pl.read_parquet(folder / f"{name}.probes.parquet").with_columns(run=pl.lit(name)) for name in names
    ]
    pl.concat(probes).write_parquet(folder / "probes.parquet")
    busy = [
        {
            "run": name,
            "busy_A": own["cores"]["A"]["busy_s"] / max(core["until_s"] for core in own["cores"].values()),
        }
        for name, own in about.items()
    ]
    pl.DataFrame(busy).write_csv(folder / "runs.csv")


if __name__ == "__main__":
    main()
