"""Compares two runs that differ in one thing, or one run with a law of queues, over random configurations."""

from __future__ import annotations

import random
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import hermes_flow as hf
from benchmarks.fuzz.outcome import MOST_REQUESTS, Outcome, Try
from benchmarks.fuzz.overrides import entries
from hermes_flow.errors import HermesFlowError, InternalError

if TYPE_CHECKING:
    import polars as pl

_APART = (
    "workload=synthetic",
    "workload.requests=8",
    "workload.arrivals=constant",
    "workload.rate_per_s=0.001",
)
_BUSY = ("workload=synthetic", "workload.requests=60", "workload.rate_per_s=20")
_NOT_ALONE = ("mixed", "routed_by_load")  # a pipeline whose requests depend on the others
_FIGURES = ("bandwidth_gb_s", "scale_up_gb_s", "host_link_gb_s", "network_gb_s")
_PEAKS = ("peak_tflops_bf16", "peak_tflops_fp8", "peak_tops_int8")

_CHOICES = {
    "cluster": ("replicas", "disaggregated", "hgx", "rack", "hybrid"),
    "model": ("llama3_8b", "mistral_7b", "qwen2_5_7b", "qwen3_14b"),
    "hardware": ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "mi300x", "tpu_v7", "l40s"),
    "engine": ("vllm", "sglang", "sglang", "tensorrt_llm"),
}

Law = Callable[[tuple[str, ...], random.Random], str | None]


def relation(rng: random.Random) -> Try:
    """Draw a law and a configuration; the parts of the case are the overrides of the configuration."""
    name = rng.choice(list(LAWS))
    base = [f"pipeline={rng.choice([each for each in entries('pipeline') if each not in _NOT_ALONE])}"]
    for group, names in _CHOICES.items():
        if rng.random() < 0.4:
            base.append(f"{group}={rng.choice(names)}")
    split = "cluster=disaggregated" in base or "cluster=rack" in base or "cluster=hybrid" in base
    base += [text for text in _CHANGES if rng.random() < 0.12 and not (split and "pools.llm" in text)]
    chance = rng.randrange(10**6)

    def run(overrides: tuple[str, ...]) -> Outcome:
        shown = (f"law {name}", *overrides)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                broken = LAWS[name](overrides, random.Random(chance))
            except InternalError as error:
                return Outcome(shown, False, f"internal error: {error}")
            except HermesFlowError:
                return Outcome(shown, False)
            except Exception as error:  # what the fuzz looks for
                return Outcome(shown, False, f"{type(error).__name__}: {error}"[:300])
        return Outcome(shown, True, broken and f"law {name}: {broken}")

    return Try("relation", tuple(base), run)


_CHANGES = (
    *(
        "cluster.pools.llm.batching=continuous",
        "cluster.pools.llm.batching=mixed",
        "cluster.pools.llm.batching=static",
    ),
    *("cluster.pools.llm.max_num_seqs=4", "cluster.pools.llm.count=3", "cluster.pools.llm.tensor_parallel=2"),
    *(
        "cluster.pools.llm.prefix_cache=false",
        "cluster.pools.llm.preemption=swap",
        "cluster.pools.llm.kv_blocks=900",
    ),
    *("cluster.routing=random", "cluster.routing=least_requests", "cluster.routing=least_kv"),
    *("cluster.routing_stale_ms=20", "workload.input_tokens=900", "workload.output_tokens=3"),
)


def _result(overrides: Sequence[str]) -> hf.Result:
    program = hf.compile(hf.compose(list(overrides)))
    if program.requests and len(program.requests) > MOST_REQUESTS:
        raise HermesFlowError("too many requests for a relation")
    return hf.simulate(program)


def _faster_hardware(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """Requests that never meet are no later on hardware with twice the bandwidth, or twice the peaks."""
    config = hf.compose([*overrides, *_APART])
    chosen = rng.choice((_FIGURES[:1], _PEAKS, _FIGURES, (*_FIGURES, *_PEAKS)))
    given = []
    for name, pool in config.cluster.pools.items():
        hardware = getattr(pool, "hardware", None)
        for figure in chosen:
            value = getattr(hardware, figure, None)
            if isinstance(value, (int, float)) and value:
                given.append(f"cluster.pools.{name}.hardware.{figure}={2 * value:g}")
    before, after = _result([*overrides, *_APART]), _result([*overrides, *_APART, *given])
    first, second = (run.requests["e2e_s"].fill_null(0.0).to_numpy() for run in (before, after))
    worse = np.flatnonzero(second > first * (1 + 1e-6) + 2e-9)
    if not len(worse):
        return None
    row = int(worse[0])
    return f"request {row} takes {first[row]:.9g} s, and {second[row]:.9g} s with twice {', '.join(chosen)}"


def _permuted_rows(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """A trace with its rows in another order gives the same tables."""
    rows = [
        f"{index * 0.05 + rng.random() * 0.04:.6f},{rng.randrange(1, 900)},{rng.randrange(1, 60)}"
        for index in range(20)
    ]
    shuffled = rng.sample(rows, len(rows))
    return _equal_traces(overrides, rows, shuffled)


def _equal_at_once(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """Equal rows that arrive at once are one another's: their order in the file changes nothing."""
    rows = [f"{index // 4 * 0.3:.6f},{400 + index // 4},{20}" for index in range(16)]
    groups = [rows[start : start + 4] for start in range(0, 16, 4)]
    rng.shuffle(groups)
    return _equal_traces(overrides, rows, [row for group in groups for row in group])


def _equal_traces(overrides: tuple[str, ...], rows: list[str], others: list[str]) -> str | None:
    found = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.csv"
        for lines in (rows, others):
            path.write_text("arrival_s,input_tokens,output_tokens\n" + "\n".join(lines) + "\n")
            kept = [each for each in overrides if not each.startswith("workload.")]
            found.append(_result([*kept, "workload=trace", f"workload.path={path}"]))
    return _unlike(found[0], found[1])


def _unlike(one: hf.Result, other: hf.Result) -> str | None:
    for name in ("requests", "stages", "clients", "links"):
        first, second = getattr(one, name), getattr(other, name)
        if not first.equals(second, null_equal=True):
            return f"the tables of {name} differ"
    return None


def _same_twice(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """The same configuration gives the same tables."""
    given = [*overrides, *_BUSY]
    return _unlike(_result(given), _result(given))


def _scaled_time(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """Twice all durations and half the rate give twice all times."""
    kept = [
        each
        for each in overrides
        if each.startswith(("cluster.pools.llm.", "cluster.routing=", "engine=")) and "swap" not in each
    ]  # what is swapped out takes the time of the link, which does not change
    base = ["pipeline=llm", *kept, "cost=affine", *_BUSY, "workload.arrivals=constant"]
    times = []
    for factor in (1, 2):
        costs = [f"cost.fixed_us={4000 * factor}", f"cost.per_token_us={10 * factor}"]
        costs += [f"cost.per_context_us={factor / 4}", f"workload.rate_per_s={20 / factor}"]
        run = _result([*base, *costs])
        times.append(run.requests["e2e_s"].fill_null(0.0).to_numpy())
    off = np.abs(times[1] - 2 * times[0])
    worst = int(np.argmax(off))
    if off[worst] <= 1e-6 * times[1][worst] + 1e-6:
        return None
    return f"request {worst} takes {times[0][worst]:.9g} s, and {times[1][worst]:.9g} s with all durations doubled"


def _free_stages(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """Text stages that take no time change no token's time."""
    kept = [
        each
        for each in overrides
        if each.startswith(("cluster.pools.llm.", "engine=", "model=", "hardware="))
    ]
    free = [
        f"+pipeline.stages.{name}.{key}=0"
        for name in ("tokenize", "detokenize")
        for key in ("fixed_us", "per_token_us")
    ]
    plain = _result(["pipeline=llm", "slo=none", *kept, *_BUSY])
    staged = _result(["pipeline=chat", "slo=none", *kept, *_BUSY, *free])
    times = [run.requests["first_token_s"].fill_null(-1.0).to_numpy() for run in (plain, staged)]
    off = np.abs(times[0] - times[1])  # a request that fails has no token on either side
    worst = int(np.argmax(off))
    return None if off[worst] < 1e-6 else f"the first token of request {worst} moves by {off[worst]:.9g} s"


def _littles_law(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """The mean number of requests in the system is their rate times their mean time, counted from the stages."""
    run = _result([*overrides, *_BUSY])
    done = run.requests.filter(run.requests["status"] == "completed")
    if done.height < run.requests.height or not done.height:
        return None
    events = np.concatenate([done["arrival_s"].to_numpy(), done["finish_s"].to_numpy()])
    change = np.repeat([1, -1], done.height)
    order = np.argsort(events, kind="stable")
    within = float((np.cumsum(change[order])[:-1] * np.diff(events[order])).sum())
    total = float(done["e2e_s"].sum())
    if abs(within - total) > 1e-6 * total:
        return f"{within:.9g} requests × s in the system, and {total:.9g} s spent by requests"
    return _stages_fill(run.stages, done)


def _stages_fill(stages: pl.DataFrame, requests: pl.DataFrame) -> str | None:
    """Return a request with a time at which none of its stages is under way, if there is one."""
    import polars as pl

    spans = stages.sort("request", "ready_s").select("request", "ready_s", "finish_s")
    spans = spans.join(requests.select("request", "arrival_s"), on="request")
    gaps = spans.with_columns(
        pl.col("finish_s")
        .cum_max()
        .over("request")
        .shift(1)
        .over("request")
        .fill_null(pl.col("arrival_s"))
        .alias("until")
    ).filter(pl.col("ready_s") > pl.col("until") + 2e-9)
    return (
        None
        if gaps.is_empty()
        else f"request {gaps['request'][0]} is in no stage from {gaps['until'][0]} s on"
    )


def _utilization_law(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """A sequential client is busy for the service of its tasks over its cores, and an LLM client for its steps."""
    import polars as pl

    config = hf.compose([*overrides, *_BUSY])
    program = hf.compile(config)
    run = hf.simulate(program)
    end = float(run.stages["finish_s"].max() or 0.0)  # type: ignore[arg-type]

    if not end:
        return None
    service = dict(run.stages.group_by("client").agg(pl.col("service_s").sum()).iter_rows())
    for pool in program.pools:
        if pool.client.kind != "sequential":
            continue
        cores = getattr(pool.client, "cores", 1)
        own = run.clients.filter(run.clients["pool"] == pool.name)
        for client, busy in own.select("client", "busy_fraction").iter_rows():
            law = service.get(client, 0.0) / cores / end
            if abs(busy - law) > 1e-6 * max(law, 1e-9) + 1e-7:
                return f"{client} is busy {busy:.9g}, and its service is {law:.9g} of its cores"
    return None


def _energy_adds_up(overrides: tuple[str, ...], rng: random.Random) -> str | None:
    """The joules of the requests and those of idle time are those of the clients, also where clients fail."""
    failing = rng.choice(
        (
            "cluster.pools.host.count=1",
            "workload.timeout_s=2",
            "cluster.admission={policy:limit,max_in_flight:4,on_full:hold}",
            "cluster.pools.llm.failures={mtbf_s:2,repair_s:1}",
            "cluster.pools.llm.failures={mtbf_s:2,repair_s:1,on_failure:lose}",
        )
    )
    run = _result([*overrides, *_BUSY, failing])
    energy = run.summary["energy"]
    if energy["total_j"] is None:
        return None
    shared = float(run.requests["energy_j"].fill_null(0.0).sum()) + energy["idle_j"]
    if abs(shared - energy["total_j"]) <= 1e-6 * energy["total_j"]:
        return None
    return f"requests and idle time take {shared:.9g} J with {failing}, and all clients {energy['total_j']:.9g} J"


LAWS: dict[str, Law] = {
    "faster hardware": _faster_hardware,
    "permuted rows": _permuted_rows,
    "equal rows": _equal_at_once,
    "same twice": _same_twice,
    "scaled time": _scaled_time,
    "free stages": _free_stages,
    "Little": _littles_law,
    "utilization": _utilization_law,
    "energy": _energy_adds_up,
}
