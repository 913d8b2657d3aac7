"""How many tasks wait or are served, and how much KV is in use, over the time of a run.

The levels are computed from the table of stages, so that they are known for every run that has tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bins:
    """Equal parts of the time of a run; ``edges_s`` has one entry more than there are parts."""

    edges_s: Floats

    @property
    def middles_s(self) -> Floats:
        """The middle of each part."""
        return (self.edges_s[1:] + self.edges_s[:-1]) / 2

    @property
    def width_s(self) -> float:
        """The length of a part."""
        return float(self.edges_s[1] - self.edges_s[0])

    def mean_level(self, starts_s: Floats, ends_s: Floats) -> Floats:
        """Return how many of the intervals are open in each part, as the mean over its time."""
        total = _open_time(self.edges_s, starts_s) - _open_time(self.edges_s, ends_s)
        return np.maximum(np.diff(total) / self.width_s, 0.0)

    def rate(self, instants_s: Floats) -> Floats:
        """Return how many of the instants lie in each part, per second."""
        counts, _ = np.histogram(instants_s, self.edges_s)
        return counts / self.width_s


def bins(end_s: float, count: int = 200) -> Bins:
    """Return ``count`` parts of the time from 0 to ``end_s``; a run without length has a part of a nanosecond."""
    return Bins(np.linspace(0.0, max(end_s, 1e-9), count + 1))


def _open_time(times_s: Floats, starts_s: Floats) -> Floats:
    """Return the sum over ``starts_s`` of the time that has passed since then, at each of ``times_s``."""
    ordered = np.sort(starts_s)
    before = np.concatenate(([0.0], np.cumsum(ordered)))
    count = np.searchsorted(ordered, times_s, side="right")
    return count * times_s - before[count]


def ramp_level(times_s: Floats, starts_s: Floats, ends_s: Floats, first: Floats, last: Floats) -> Floats:
    """Return the sum, at each of ``times_s``, of intervals whose level goes straight from ``first`` to ``last``."""
    lengths = ends_s - starts_s
    slopes = np.divide(last - first, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    level = _stepped(times_s, starts_s, first - slopes * starts_s, slopes)
    level -= _stepped(times_s, ends_s, first - slopes * starts_s, slopes)
    return np.maximum(level, 0.0)


def _stepped(times_s: Floats, at_s: Floats, constants: Floats, slopes: Floats) -> Floats:
    order = np.argsort(at_s, kind="stable")
    count = np.searchsorted(at_s[order], times_s, side="right")
    constant = np.concatenate(([0.0], np.cumsum(constants[order])))[count]
    slope = np.concatenate(([0.0], np.cumsum(slopes[order])))[count]
    return constant + slope * times_s


def kv_levels(stages: pl.DataFrame, times_s: Floats) -> dict[str, Floats]:
    """Return, by client, the tokens of context that its sequences hold at each of ``times_s``.

    A prefill fills up from nothing to its prompt, and a decode goes on to the prompt and the answer. Blocks that a
    prefix cache shares count once for each sequence, so this is the load that sequences bring and not the exact
    number of blocks.
    """
    import polars as pl

    own = stages.filter(
        pl.col("kind").str.contains("prefill|decode")
        & pl.col("finish_s").is_not_null()
        & pl.col("client").is_not_null()
    ).sort("request", "ready_s", maintain_order=True)
    prompt = pl.when(pl.col("kind").str.contains("prefill")).then(pl.col("tokens"))
    own = own.with_columns(prompt=prompt.forward_fill().over("request").fill_null(0))
    decodes = pl.col("kind") == "decode"
    own = own.with_columns(
        first=pl.when(decodes).then(pl.col("prompt")).otherwise(0),
        last=pl.when(decodes).then(pl.col("prompt") + pl.col("tokens")).otherwise(pl.col("tokens")),
    )
    return {
        str(client): ramp_level(
            times_s,
            *(part[name].cast(pl.Float64).to_numpy() for name in ("start_s", "finish_s", "first", "last")),
        )
        for (client,), part in own.partition_by("client", as_dict=True, maintain_order=True).items()
    }
