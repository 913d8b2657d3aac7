"""The summary of a run: latencies, throughput, SLO, stages, pools, cost and bottleneck.

All values are plain Python and JSON-safe: None stands for what is undefined. Equal configs and seeds give
equal summaries but for ``engine.wall_s`` and ``engine.cpu_s``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.metrics.bottleneck import find_limits
from hermes_flow.metrics.cost import cost_summary
from hermes_flow.metrics.critical_path import path_figures
from hermes_flow.metrics.energy import Energies, energy_summary
from hermes_flow.metrics.error_bars.bars import METRICS, error_summary
from hermes_flow.metrics.fleets import fleet_summary
from hermes_flow.metrics.groups import classes_and_tenants, counts, group_figures
from hermes_flow.metrics.itl import RunGaps
from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.objectives import loosest_limits, request_values, within_limits
from hermes_flow.metrics.operations import operations_summary
from hermes_flow.metrics.phases import phase_summary
from hermes_flow.metrics.pool_sections import pool_sections, pool_warnings
from hermes_flow.metrics.prefix_hits import prefix_summary
from hermes_flow.metrics.sites import site_summary
from hermes_flow.metrics.stage_sums import StageSums, pool_queues, stage_sums
from hermes_flow.metrics.statistics import PERCENTILES, STATISTICS, statistics
from hermes_flow.metrics.throughput import generated_tokens, steady_throughput
from hermes_flow.metrics.why.explain import Why
from hermes_flow.program.same_bits import known_total, mean, total
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl

_REASONS_SHOWN = 5


def summarize(
    recording: Recording,
    requests: Callable[[], pl.DataFrame],
    clients: pl.DataFrame,
    energy: Energies,
    bounds: dict[str, dict[str, Any]],
    why: Why,
    found: Latencies,
) -> dict[str, Any]:
    """Return the summary of a run from its recording, the results of its bounds, and why they are so.

    ``requests`` returns the table of requests; only runs with groups or phases of requests need it.

    Latencies are of completed requests, percentiles interpolate linearly (those of ITL are exact, over all
    gaps of the run). Rates and costs are over the span from the first arrival to the last completion, and count all
    generated tokens; ``throughput.steady`` leaves out ramp and drain.
    """
    program, completed = recording.program, recording.status == 0
    done = int(completed.sum())
    span_s = _span_s(recording)
    tokens = generated_tokens(recording)
    tasks = stage_sums(recording)
    path = path_figures(recording)
    stage_figures = _stages(tasks, known_total(found.e2e_s))
    prompts = int(program.requests.input_tokens[completed].sum())
    cost = cost_summary(recording, span_s, done, prompts, tokens if program.answers else None)
    latencies = found.by_metric()
    times = {metric: statistics(latencies[metric][~np.isnan(latencies[metric])]) for metric in METRICS}
    prefix = prefix_summary(recording)
    pools = {stage: " and ".join(own.pools) for stage, own in tasks.items()}
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
        "throughput": _throughput(recording, found, tokens, span_s),
        "slo": _slo(recording, found, bounds, span_s),
        **_pipelines(recording, requests, span_s),
        **_groups(recording, requests, bounds, span_s),
        **(site_summary(recording, requests(), span_s, statistics) if program.sites is not None else {}),
        **operations_summary(recording, energy),
        **(phase_summary(recording, found, requests(), cost["usd_per_hour"]) if program.phases else {}),
        "stages": stage_figures,
        "critical_path": path,
        "pools": _pools(recording, clients, why),
        **fleet_summary(recording),
        **prefix,
        **pool_sections(recording),
        "limits": limits,
        "why": why.summary(),
        "energy": energy_summary(recording, energy, tokens if program.answers else 0),
        "cost": cost,
        "engine": _engine(recording, clients),
        **({"workload": {"leaves_out": list(program.leaves_out)}} if program.leaves_out else {}),
        "warnings": [*program.warnings, *_failures(recording), *pool_warnings(recording)],
    }


def _groups(
    recording: Recording,
    requests: Callable[[], pl.DataFrame],
    bounds: dict[str, dict[str, Any]],
    span_s: float,
) -> dict[str, Any]:
    """Return the figures of traffic classes and tenants; nothing where there are none."""
    workload = recording.program.requests
    if workload.traffic is None and workload.tenant is None:
        return {}
    return classes_and_tenants(recording, requests(), bounds, span_s, statistics)


def _pipelines(recording: Recording, requests: Callable[[], pl.DataFrame], span_s: float) -> dict[str, Any]:
    """Return the figures of each pipeline's requests by its name; nothing where there is only one."""
    chosen, names = recording.program.requests.pipeline, recording.program.requests.pipelines
    if chosen is None:
        return {}
    return {"pipelines": group_figures(recording, requests(), chosen, names, span_s, statistics)}


def _span_s(recording: Recording) -> float:
    """Return the time from the first arrival to the last completion; 0 if nothing completed."""
    finish_ns = recording.finish_ns[recording.status == 0]
    return int(finish_ns.max() - recording.arrival_ns.min()) / NS_PER_S if len(finish_ns) else 0.0


def _throughput(recording: Recording, found: Latencies, tokens: int, span_s: float) -> dict[str, Any]:
    """Return the rates over the span, and that of the steady part; those of tokens are None where none are generated.

    ``tokens`` are all tokens that were generated, those of answers are what the user of a completed request gets.
    """
    completed, answers = recording.status == 0, recording.program.answers
    answered = int(found.output_tokens[completed].sum()) if answers else None
    return {
        "requests_per_s": _ratio(int(completed.sum()), span_s),
        "output_tokens_per_s": _ratio(tokens, span_s) if answers else None,
        "answer_tokens_per_s": _ratio(answered, span_s),
        "steady": steady_throughput(recording),
    }


def _engine(recording: Recording, clients: pl.DataFrame) -> dict[str, Any]:
    """Return what the simulator did, and how long it took."""
    return {
        "events": recording.events,
        "steps": int(clients["steps"].sum()),
        "wall_s": recording.wall_s,
        "cpu_s": recording.cpu_s,
    }


def _itl(recording: Recording) -> dict[str, float | None]:
    found = RunGaps(recording).mean_and_quantiles([level / 100 for level in PERCENTILES])
    if found is None:
        return dict.fromkeys(STATISTICS)
    mean, quantiles = found
    in_ps = [mean, *quantiles]
    return {name: gap / (PS_PER_NS * NS_PER_S) for name, gap in zip(STATISTICS, in_ps, strict=True)}


def _slo(
    recording: Recording, found: Latencies, bounds: dict[str, dict[str, Any]], span_s: float
) -> dict[str, Any]:
    """Return attainment, goodput and every bound with its value."""
    slo, submitted = recording.program.slo, len(recording.status)
    limits = loosest_limits(slo)
    values = request_values(recording, found, slo) if limits else {}
    within = int(within_limits(recording, values, limits).sum()) if limits else None
    return {
        "name": slo.name,
        "met": all(bound["met"] for bound in bounds.values()) if bounds else None,
        "attainment": _ratio(within, submitted),
        "goodput_requests_per_s": _ratio(within, span_s),
        "bounds": bounds,
    }


def _stages(tasks: dict[str, StageSums], e2e_sum_s: float) -> dict[str, dict[str, float | None]]:
    """Return each stage's times per task, and its share of all time requests spent in the system."""
    return {
        stage: {
            "mean_s": _ratio(task.total_s, task.tasks),
            "p99_s": task.p99_s,
            "share_of_e2e": _ratio(task.total_s, e2e_sum_s),
            "queue_mean_s": _ratio(task.queue_s, task.tasks),
            "service_mean_s": _ratio(task.service_s, task.tasks),
        }
        for stage, task in tasks.items()
    }


def _pools(recording: Recording, clients: pl.DataFrame, why: Why) -> dict[str, dict[str, Any]]:
    """Return each pool's load: means over its clients, steps and tasks, peaks of the fullest client."""
    pools = {}
    for pool, (tasks, queue_s) in zip(recording.program.pools, pool_queues(recording), strict=True):
        here = clients["pool"] == pool.name
        steps = clients["steps"].filter(here).fill_null(0).to_numpy()
        scheduled = steps * clients["mean_batch"].filter(here).fill_null(0.0).to_numpy()
        busy = clients["busy_fraction"].filter(here).drop_nulls()
        pools[pool.name] = {
            "clients": pool.count,
            "busy_fraction": mean(busy.to_numpy()) if len(busy) else None,
            "busiest_client_fraction": busy.max(),
            "queue_mean_s": _ratio(queue_s, tasks),
            "mean_batch": _ratio(total(scheduled), int(steps.sum())),
            "kv_peak_fraction": clients["kv_peak_fraction"].filter(here).max(),
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
