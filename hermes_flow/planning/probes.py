"""The simulations of a capacity search, and the table that keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.errors import HermesFlowError, reason
from hermes_flow.planning.verdict import Verdict

if TYPE_CHECKING:
    import polars as pl

Number = int | float


@dataclass(frozen=True, slots=True)
class Probe:
    """One simulation of the search: the value of the key, the seed, the verdict, and the factor of all step times."""

    value: Number
    seed: int
    verdict: Verdict
    problem: str | None = None  # why this value could not be simulated at all; it counts as not met
    step_times: float = 1.0


def probes_frame(probes: Iterable[Probe]) -> pl.DataFrame:
    """Return one row per probe, in their order."""
    import polars as pl

    rows = [
        {
            "value": float(probe.value),
            "seed": probe.seed,
            "met": probe.verdict.met,
            "sustained": probe.verdict.sustained,
            "rate_per_s": probe.verdict.rate_per_s,
            "simulated_share": probe.verdict.share,
            "failing": "; ".join(probe.verdict.failing) or None,
            "problem": probe.problem,
            "step_times": probe.step_times,
            "requests": probe.verdict.requests,
        }
        for probe in probes
    ]
    schema = {"value": pl.Float64, "seed": pl.Int64, "met": pl.Boolean, "sustained": pl.Boolean}
    schema |= {"rate_per_s": pl.Float64, "simulated_share": pl.Float64, "failing": pl.String}
    schema |= {"problem": pl.String, "step_times": pl.Float64, "requests": pl.Int64}
    return pl.DataFrame(rows, schema=schema)


def read_probes(path: Path, whole: bool) -> list[Probe]:
    """Return the probes of a ``capacity.parquet``; ``whole`` tells that the searched key is a whole number.

    Raises HermesFlowError naming the file if it cannot be read.
    """
    import polars as pl

    try:
        rows = pl.read_parquet(path).to_dicts()
        return [
            Probe(
                round(row["value"]) if whole else row["value"],
                row["seed"],
                Verdict(
                    row["met"],
                    row["sustained"],
                    tuple((row["failing"] or "").split("; ")) if row["failing"] else (),
                    share=row["simulated_share"],
                    rate_per_s=row["rate_per_s"],
                    requests=row.get("requests", 0),
                ),
                row["problem"],
                row.get("step_times", 1.0),
            )
            for row in rows
        ]
    except (KeyError, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise HermesFlowError(f"{path}: the probes cannot be read: {reason(error)}") from error
