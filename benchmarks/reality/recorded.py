"""Reads a recorded run of a real vLLM on a CPU, and says how the simulator repeats it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl

CONF = Path(__file__).parent / "conf"
SIDE = ("embed", "search", "guard", "tool")
_ALONE = 10_000_000  # from here on, ids of blocks that only one prompt has
_MOST_BLOCKS = 1000  # of one prompt
_ROUNDING_US = 2


@dataclass(frozen=True, slots=True)
class Recorded:
    """One run: its requests, the steps of its engines, its stages (None: an LLM alone), and what runs.json says."""

    name: str
    folder: Path
    requests: pl.DataFrame
    steps: pl.DataFrame
    stages: pl.DataFrame | None
    about: dict[str, Any]

    @property
    def pipeline(self) -> str:
        """The kind of pipeline; "" for an LLM alone."""
        kind: str = self.about.get("pipeline", "")
        return kind

    @property
    def shares_a_core(self) -> bool:
        """Whether side stages run on the core of an engine."""
        return any(len(core["players"]) > 1 for core in self.about["cores"].values())


def runs_of(folder: Path) -> list[str]:
    """Return the names of the runs in a folder."""
    return sorted(path.name.removesuffix(".requests.csv") for path in folder.glob("*.requests.csv"))


def read_run(folder: Path, name: str) -> Recorded:
    """Return a run of a folder."""
    about = json.loads((folder / "runs.json").read_text(encoding="utf-8"))[name]
    stages = folder / f"{name}.stages.parquet"
    return Recorded(
        name=name,
        folder=folder,
        requests=pl.read_csv(folder / f"{name}.requests.csv"),
        steps=pl.read_parquet(folder / f"{name}.steps.parquet"),
        stages=pl.read_parquet(stages) if stages.exists() else None,
        about=about,
    )


def trace_of(run: Recorded) -> pl.DataFrame:
    """Return the requests as a native trace with everything that is known of them.

    Later turns of a session, and of a user in a closed loop, wait for the answers before them.
    """
    return _alone(run) if run.stages is None else _pipeline(run, run.stages)


def with_side_times(
    trace: pl.DataFrame, run: Recorded, lines: dict[str, tuple[float, float]]
) -> pl.DataFrame:
    """Return a trace with the times of side stages on a line, fixed and per size in µs, in place of recorded ones."""
    assert run.stages is not None
    sizes = {
        (stage["request"], stage["stage"], stage["instance"]): stage["size"]
        for stage in run.stages.filter(pl.col("stage").is_in(SIDE)).iter_rows(named=True)
    }
    lists = trace["stages"].to_list()
    for request, entries in zip(run.requests["request"].to_list(), lists, strict=True):
        for entry in entries:
            if entry["stage"] in lines:
                fixed, per_size = lines[entry["stage"]]
                size = sizes[request, entry["stage"], entry["instance"] or 0]
                entry["duration_us"] = max(0.0, fixed + per_size * size)
    return trace.with_columns(pl.Series("stages", lists, dtype=trace.schema["stages"]))


def overrides_of(run: Recorded) -> list[str]:
    """Return the overrides that describe the deployment of a run, without its workload and its costs."""
    engines = run.about["engines"]
    overrides = ["hardware=reality_core", "model=toy", "slo=none"]
    if run.pipeline == "cascade":
        overrides += ["cluster=two_models", "model@cluster.pools.small.model=toy_small"]
        overrides += ["model@cluster.pools.large.model=toy", "cluster.pools.large.tensor_parallel=1"]
    overrides.append(f"pipeline={f'reality_{run.pipeline}' if run.pipeline else 'llm'}")
    if run.pipeline == "branches" and run.stages is not None:
        branches = run.stages.filter(pl.col("stage") == "branch")["instance"].n_unique()
        overrides.append(f"pipeline.stages.branch.branches={branches}")
    if run.pipeline in ("rag", "agent"):
        overrides.append("+pool@cluster.pools.side=reality_side")
    if run.shares_a_core:
        overrides.append("cluster.pools.side.shares_device_with=llm")
    for engine, about in engines.items():
        limits, pool = about["limits"], f"cluster.pools.{engine}"
        keys = {"kv_blocks": limits["kv_blocks_usable"], "lookahead": 0}
        keys |= {key: limits[key] for key in ("block_size", "max_num_seqs", "max_num_batched_tokens")}
        keys["prefix_cache"] = str(bool(limits["prefix_cache"])).lower()
        overrides += [f"{pool}.{key}={value}" for key, value in keys.items()]
    return overrides


def workload_of(run: Recorded, path: Path) -> list[str]:
    """Return the overrides that replay the trace of a run, which was written to ``path``."""
    workload = ["workload=trace", f"workload.path={path}"]
    block = next(iter(run.about["engines"].values()))["limits"]["block_size"]
    hashed = "prefix_hashes" in trace_columns(run)
    return [*workload, f"workload.prefix_block_tokens={block}"] if hashed else workload


def trace_columns(run: Recorded) -> list[str]:
    """Return the columns of the trace of a run."""
    return trace_of(run).columns


def replay_of(run: Recorded) -> list[str]:
    """Return the overrides under which each engine's steps take the times that were recorded."""
    path = run.folder / f"{run.name}.steps.parquet"
    engines = list(run.about["engines"])
    if len(engines) == 1:
        return ["cost=replay", f"cost.path={path}"]
    return [
        f"cluster.pools.{engine}.cost={{kind: replay, path: {path}, where: {{engine: {engine}}}}}"
        for engine in engines
    ]


def _alone(run: Recorded) -> pl.DataFrame:
    requests, limits = run.requests, run.about["engines"]["llm"]["limits"]
    trace = requests.select("arrival_us", "input_tokens", "output_tokens")
    if limits["prefix_cache"]:
        trace = trace.with_columns(_hashes(requests, limits["block_size"]))
    if requests["session"].null_count() < len(requests):
        ended = (pl.col("arrival_us") + pl.col("e2e_us")).shift(1).over("session", order_by="turn")
        delay = pl.col("arrival_us") - ended
        rounded = (
            pl.when(delay <= _ROUNDING_US).then(0).otherwise(delay)
        )  # of times that are whole microseconds
        trace = trace.with_columns(requests["session"], requests.select(delay_us=rounded)["delay_us"])
        later = pl.col("delay_us").is_not_null()
        trace = trace.with_columns(arrival_us=pl.when(later).then(None).otherwise(pl.col("arrival_us")))
    return trace


def _hashes(requests: pl.DataFrame, block: int) -> list[pl.Series]:
    """Return the names of the blocks of prompts and answers: of a family, of a session, or of one prompt alone."""
    prompts, answers = [], []
    numbers: dict[Any, int] = {}
    for row in requests.iter_rows(named=True):
        name = row["family"] if row["session"] is None else row["session"]
        own = _MOST_BLOCKS * numbers.setdefault(name, len(numbers))
        alone = _ALONE + _MOST_BLOCKS * len(prompts)
        end = row["input_tokens"] + row["output_tokens"]
        if row["session"] is None:
            known, count = row["shared_tokens"] // block, -(-row["input_tokens"] // block)
            prompts.append([own + k if k < known else alone + k for k in range(count)])
            answers.append([])
        else:
            prompts.append([own + k for k in range(-(-row["input_tokens"] // block))])
            answers.append([own + k for k in range(row["input_tokens"] // block, end // block)])
    kind = pl.List(pl.Int64)
    return [pl.Series("prefix_hashes", prompts, kind), pl.Series("answer_hashes", answers, kind)]


def _pipeline(run: Recorded, stages: pl.DataFrame) -> pl.DataFrame:
    by_request: dict[int, list[dict[str, Any]]] = {}
    took = _durations_us(run, stages)
    for stage in (
        stages.with_columns(took_us=pl.Series(took)).sort("request", "ready_us").iter_rows(named=True)
    ):
        by_request.setdefault(stage["request"], []).append(stage)
    rows = []
    for request in run.requests.iter_rows(named=True):
        own = by_request[request["request"]]
        entries, prompt, answer = _LISTED[run.pipeline](own)
        rows.append(
            {
                "arrival_us": request["arrival_us"],
                "input_tokens": prompt,
                "output_tokens": answer,
                "stages": entries,
            }
        )
    fields = {"stage": pl.String, "instance": pl.Int64, "input_tokens": pl.Int64, "output_tokens": pl.Int64}
    listed = pl.List(pl.Struct(fields | {"duration_us": pl.Float64}))
    return pl.DataFrame(rows, schema_overrides={"stages": listed})


def _durations_us(run: Recorded, stages: pl.DataFrame) -> list[int]:
    """Return the time of each side task, from the end of what its core did before where it follows that at once.

    Recorded instants are rounded, so that durations alone drift away from them.
    """
    ends: dict[str, list[int]] = {}
    engines = {engine: core for core, about in run.about["cores"].items() for engine in about["players"]}
    for core in run.about["cores"]:
        side = stages.filter((pl.col("core") == core) & pl.col("stage").is_in(SIDE))["finish_us"].to_list()
        of_engine = [name for name, place in engines.items() if place == core]
        steps = run.steps.filter(pl.col("engine").is_in(of_engine))
        ends[core] = sorted([*side, *(steps["start_us"] + steps["duration_us"]).to_list()])
    took = []
    for stage in stages.iter_rows(named=True):
        start = stage["start_us"]
        near = [end for end in ends[stage["core"]] if abs(end - start) <= _ROUNDING_US]
        took.append(stage["finish_us"] - (near[0] if near else start))
    return took


def _rag(stages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    one = {stage["stage"]: stage for stage in stages}
    entries = [
        {"stage": "embed", "input_tokens": one["embed"]["size"], "duration_us": one["embed"]["took_us"]},
        {"stage": "search", "duration_us": one["search"]["took_us"]},
        {"stage": "prefill", "input_tokens": one["llm"]["size"]},
        {"stage": "guard", "input_tokens": one["guard"]["size"], "duration_us": one["guard"]["took_us"]},
    ]
    return entries, one["embed"]["size"], one["llm"]["output_tokens"]


def _agent(stages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    calls = [stage for stage in stages if stage["stage"] == "llm"]
    tools = {stage["instance"]: stage for stage in stages if stage["stage"] == "tool"}
    entries = []
    for turn, (call, after) in enumerate(pairwise(calls)):
        entries += [
            {"stage": "think", "instance": turn, "input_tokens": call["size"]},
            {"stage": "act", "instance": turn, "output_tokens": call["output_tokens"]},
            {
                "stage": "tool",
                "instance": turn,
                "output_tokens": after["size"] - call["size"] - call["output_tokens"],
                "duration_us": tools[turn]["took_us"],
            },
        ]
    last = calls[-1]
    entries.append({"stage": "prefill", "input_tokens": last["size"]})
    entries.append({"stage": "decode", "output_tokens": last["output_tokens"]})
    return entries, calls[0]["size"], last["output_tokens"]


def _cascade(stages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    one = {stage["stage"]: stage for stage in stages}
    small, large = one["small"], one.get("large")
    entries = [{"stage": "decode", "output_tokens": small["output_tokens"]}]
    if large is not None:
        entries.append({"stage": "answer", "output_tokens": large["output_tokens"]})
    return entries, small["size"], (large or small)["output_tokens"]


def _branches(stages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], int, int]:
    branches = [stage for stage in stages if stage["stage"] == "branch"]
    (final,) = (stage for stage in stages if stage["stage"] == "final")
    entries = [
        {"stage": "branch", "instance": branch["instance"], "output_tokens": branch["output_tokens"]}
        for branch in branches
    ]
    entries += [
        {"stage": "prefill", "input_tokens": final["size"]},
        {"stage": "decode", "output_tokens": final["output_tokens"]},
    ]
    return entries, branches[0]["size"], final["output_tokens"]


_LISTED = {"rag": _rag, "agent": _agent, "cascade": _cascade, "branches": _branches}
