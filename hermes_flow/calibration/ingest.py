"""Fits the ingest time of a step cost to a log of requests that the same deployment served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import yaml  # type: ignore[import-untyped]

from hermes_flow.calibration.entry import Entry, number
from hermes_flow.calibration.from_requests import latencies_of, log_workload, read_log
from hermes_flow.config.schema import Config
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.units import MS_PER_S

_ROUNDS = 3  # of simulating with the ingest time found so far


def with_ingest(entry: Entry, config: Config, pool: str, path: str, limit: int | None) -> Entry:
    """Return a regression's entry with the ``ingest_ms`` at which the mean TTFT of the log is met, 0 or more.

    The log is simulated on pool ``pool`` with the fitted steps. Raises ConfigError where the log has too few
    requests.
    """
    workload = log_workload(config, path, limit)
    log = read_log(path, limit, workload)
    cost = {
        key: value for key, value in yaml.safe_load(entry.text).items() if key not in ("model", "hardware")
    }
    measured = config.cluster.pools[pool]
    assert isinstance(measured, LLMPool)
    ingest_ms = 0.0
    for _ in range(_ROUNDS):
        own = replace(measured, cost={**cost, "ingest_ms": ingest_ms})
        cluster = replace(config.cluster, pools={**config.cluster.pools, pool: own})
        errors = log.errors(latencies_of(replace(config, cluster=cluster, workload=workload)))
        late_s = -float(np.mean(errors["ttft"] * log.means["ttft"]))
        ingest_ms = max(0.0, ingest_ms + late_s * MS_PER_S)
    text = f"{entry.text}ingest_ms: {number(ingest_ms)} # by the mean TTFT of {path}\n"
    lines = (
        *entry.lines,
        f"ingest_ms {ingest_ms:.4g}, by the mean TTFT of {len(log.window):,} requests of {path}",
    )
    return replace(entry, text=text, lines=lines, figures={**entry.figures, "ingest_ms": ingest_ms})
