"""The summary of a run: latencies, throughput, SLO, stages, pools, cost and bottleneck.

All values are plain Python and JSON-safe: None stands for what is undefined. Equal configs and seeds give
equal summaries but for ``engine.wall_s`` and ``engine.cpu_s``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.bottleneck import find_limits
from hermes_flow.metrics.cost import cost_summary
from hermes_flow.metrics.critical_path import critical_path, path_summary
from hermes_flow.metrics.energy import Energies, energy_summary
from hermes_flow.metrics.error_bars.bars import METRICS, error_summary
from hermes_flow.metrics.fleets import fleet_summary
from hermes_flow.metrics.groups import classes_and_tenants, counts, group_figures
from hermes_flow.metrics.itl import inter_token_gaps
from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.objectives import loosest_limits
from hermes_flow.metrics.operations import operations_summary
from hermes_flow.metrics.phases import phase_summary
from hermes_flow.metrics.pool_sections import pool_sections
from hermes_flow.metrics.prefix_hits import prefix_summary
from hermes_flow.metrics.spans import stage_spans
from hermes_flow.metrics.statistics import PERCENTILES, STATISTICS, statistics
from hermes_flow.metrics.throughput import generated_tokens, steady_throughput
from hermes_flow.metrics.why.explain import Why
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]

_REASONS_SHOWN = 5


def summarize(
    recording: Recording,
    requests: pl.DataFrame,
    stages: pl.DataFrame,
    clients: pl.DataFrame,
    energy: Energies,
    bounds: dict[str, dict[str, Any]],
    why: Why,
    found: Latencies,
) -> dict[str, Any]:
    """Return the summary of a run from its recording and frames, the results of its bounds, and why they are so.

    Latencies are of completed requests, percentiles interpolate linearly (those of ITL are exact, over all
    gaps of the run). Rates and costs are over the span from the first arrival to the last completion, and count all
    generated tokens; ``throughput.steady`` leaves out ramp and drain.
    """
    import polars as pl

    program, completed = recording.program, recording.status == 0
    latencies = {name: requests[f"{name}_s"].drop_nulls().to_numpy() for name in ("ttft", "tpot", "e2e")}
    done = int(completed.sum())
    span_s = _span_s(recording)
    tokens = generated_tokens(recording)
    tokens_per_s = None if not program.answers else _ratio(tokens, span_s)
    if not completed.all():
        stages = stages.filter(pl.Series(completed[stages["request"].to_numpy()]))
    tasks = _tasks(recording, stages)
    path = path_summary(critical_path(recording), recording.finish_ns - recording.arrival_ns, completed)
    stage_figures = _stages(tasks, float(latencies["e2e"].sum()))
    cost = cost_summary(
        recording,
        span_s,
        done,
        int(requests["input_tokens"].to_numpy()[completed].sum()),
        tokens if program.answers else None,
    )
    times = {metric: statistics(latencies[metric]) for metric in METRICS}
    prefix = prefix_summary(recording)
    pools = {stage: task["pool"] for stage, task in tasks.items()}
    limits = find_limits(recording, stage_figures, pools, path)
    return {
        "requests": counts(recording),
        "ttft_s": times["ttft"],
        "tpot_s": times["tpot"],
        "itl_s": _itl(recording),
        "e2e_s": times["e2e"],
        "error": error_summary(
            program,
            {metric: found["mean"] for metric, found in times.items()},
            path["mean"]["shares"] if path["mean"] else None,
            prefix["prefix"]["hit_share"] if prefix else None,
            max((pool.work for pool in why.saturation.values() if pool.work is not None), default=None),
            limits["saturated"],
        ),
        "throughput": {
            "requests_per_s": _ratio(done, span_s),
            "output_tokens_per_s": tokens_per_s,
            "answer_tokens_per_s": None
            if tokens_per_s is None
            else _ratio(_answered(requests, completed), span_s),
            "steady": steady_throughput(recording),
        },
        "slo": _slo(program, requests, bounds, span_s),
        **_pipelines(recording, requests, span_s),
        **classes_and_tenants(recording, requests, bounds, span_s, statistics),
        **operations_summary(recording, energy),
        **phase_summary(recording, found, requests, cost["usd_per_hour"]),
        "stages": stage_figures,
        "critical_path": path,
        "pools": _pools(program, stages, clients, why),
        **fleet_summary(recording),
        **prefix,
        **pool_sections(recording),
        "limits": limits,
        "why": why.summary(),
        "energy": energy_summary(recording, energy, tokens if program.answers else 0),
        "cost": cost,
        "engine": {
            "events": recording.events,
            "steps": int(clients["steps"].sum()),
            "wall_s": recording.wall_s,
            "cpu_s": recording.cpu_s,
        },
        **({"workload": {"leaves_out": list(program.leaves_out)}} if program.leaves_out else {}),
        "warnings": [*program.warnings, *_failures(recording)],
    }


def _answered(requests: pl.DataFrame, completed: NDArray[np.bool_]) -> int:
    """Return the tokens of the answers that users read."""
    return int(requests["output_tokens"].to_numpy()[completed].sum())


def _pipelines(recording: Recording, requests: pl.DataFrame, span_s: float) -> dict[str, Any]:
    """Return the figures of each pipeline's requests by its name; nothing where there is only one."""
    chosen, names = recording.program.requests.pipeline, recording.program.requests.pipelines
    if chosen is None:
        return {}
    return {"pipelines": group_figures(recording, requests, chosen, names, span_s, statistics)}


def _span_s(recording: Recording) -> float:
    """Return the time from the first arrival to the last completion; 0 if nothing completed."""
    finish_ns = recording.finish_ns[recording.status == 0]
    return int(finish_ns.max() - recording.arrival_ns.min()) / NS_PER_S if len(finish_ns) else 0.0


def _itl(recording: Recording) -> dict[str, float | None]:
    gaps = inter_token_gaps(recording)
    quantiles = gaps.quantiles([level / 100 for level in PERCENTILES])
    if quantiles is None:
        return dict.fromkeys(STATISTICS)
    in_ps = [gaps.mean(), *quantiles]
    return {name: gap / (PS_PER_NS * NS_PER_S) for name, gap in zip(STATISTICS, in_ps, strict=True)}


def _slo(
    program: Program, requests: pl.DataFrame, bounds: dict[str, dict[str, Any]], span_s: float
) -> dict[str, Any]:
    """Return attainment, goodput and every bound with its value."""
    slo, submitted = program.slo, len(requests)
    within = int(requests["slo_met"].sum()) if loosest_limits(slo) else None
    return {
        "name": slo.name,
        "met": all(bound["met"] for bound in bounds.values()) if bounds else None,
        "attainment": _ratio(within, submitted),
        "goodput_requests_per_s": _ratio(within, span_s),
        "bounds": bounds,
    }


def _tasks(recording: Recording, stages: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """Return, by stage in pipeline order, its pool (or pools) and sums over ``stages``, of completed requests."""
    import polars as pl

    total = pl.col("queue_s") + pl.col("transfer_s") + pl.col("service_s")
    pools: dict[str, list[str]] = {}
    for span in stage_spans(recording):
        name = recording.program.pools[span.pool].name
        if name not in pools.setdefault(span.stage, []):
            pools[span.stage].append(name)
    rows = stages.group_by("stage", maintain_order=True).agg(
        pl.len().alias("tasks"), total.quantile(0.99, "linear").alias("p99_s")
    )
    found = {row.pop("stage"): row for row in rows.to_dicts()}
    none = {"tasks": 0, "p99_s": None}
    what = {"queue_s": pl.col("queue_s"), "service_s": pl.col("service_s"), "total_s": total}
    sums = {name: _sums(stages, "stage", list(pools), values) for name, values in what.items()}
    return {
        stage: {
            "pool": " and ".join(names),
            **found.get(stage, none),
            **{name: by_stage[stage] for name, by_stage in sums.items()},
        }
        for stage, names in pools.items()
    }


def _sums(frame: pl.DataFrame, by: str, names: Sequence[str], values: pl.Expr) -> dict[str, float]:
    """Return the sum of ``values`` for each of the ``names`` in column ``by``, added up row by row.

    Polars adds up in as many parts as there are cores, and the last digit of its sums depends on their number.
    """
    import polars as pl

    group = frame[by].cast(pl.Enum(names)).to_physical().to_numpy()
    weights = frame.select(values.fill_null(0.0)).to_series().to_numpy()
    return dict(zip(names, np.bincount(group, weights, len(names)).tolist(), strict=True))


def _stages(tasks: dict[str, dict[str, Any]], e2e_sum_s: float) -> dict[str, dict[str, float | None]]:
    """Return each stage's times per task, and its share of all time requests spent in the system."""
    return {
        stage: {
            "mean_s": _ratio(task["total_s"], task["tasks"]),
            "p99_s": task["p99_s"],
            "share_of_e2e": _ratio(task["total_s"], e2e_sum_s),
            "queue_mean_s": _ratio(task["queue_s"], task["tasks"]),
            "service_mean_s": _ratio(task["service_s"], task["tasks"]),
        }
        for stage, task in tasks.items()
    }


def _pools(
    program: Program, stages: pl.DataFrame, clients: pl.DataFrame, why: Why
) -> dict[str, dict[str, Any]]:
    """Return each pool's load: means over its clients, steps and tasks, peaks of the fullest client."""
    import polars as pl

    names = [pool.name for pool in program.pools]
    queue_s = _sums(stages, "pool", names, pl.col("queue_s"))
    tasks = dict(stages.group_by("pool").agg(pl.len()).iter_rows())
    pools = {}
    for pool in program.pools:
        own = clients.filter(clients["pool"] == pool.name)
        steps = own["steps"].fill_null(0).to_numpy()
        scheduled = steps * own["mean_batch"].fill_null(0.0).to_numpy()
        pools[pool.name] = {
            "clients": pool.count,
            "busy_fraction": own["busy_fraction"].mean(),
            "busiest_client_fraction": own["busy_fraction"].max(),
            "queue_mean_s": _ratio(queue_s[pool.name], tasks.get(pool.name, 0)),
            "mean_batch": _ratio(float(scheduled.sum()), int(steps.sum())),
            "kv_peak_fraction": own["kv_peak_fraction"].max(),
            "saturation": why.saturation[pool.name].as_dict(),
        }
    return pools


def _failures(recording: Recording) -> list[str]:
    """Return a warning per reason of failure, the most frequent first."""
    reasons = Counter(recording.failures.values()).most_common()
    texts = [f"{_requests(count)} failed: {reason}" for reason, count in reasons[:_REASONS_SHOWN]]
    rest = sum(count for _, count in reasons[_REASONS_SHOWN:])
    return [*texts, f"{_requests(rest)} failed for other reasons"] if rest else texts


def _requests(count: int) -> str:
    return f"{count:,} request{'' if count == 1 else 's'}"


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return the quotient, None where it is undefined."""
    if numerator is None or not denominator:
        return None
    return float(numerator / denominator)
