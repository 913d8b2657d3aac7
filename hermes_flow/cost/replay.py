"""The cost model ``replay``: the steps of a recorded run take what they took, in their order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hermes_flow.cost.fitted.steps import Floats
from hermes_flow.cost.fitted.tables import UNITS_US
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_US, US_PER_S
from hermes_flow.workload.traces.files import open_trace

if TYPE_CHECKING:
    import polars as pl

_TIMES = {f"time_{unit}": us for unit, us in UNITS_US.items()}
_DURATIONS = {f"duration_{unit}": us for unit, us in UNITS_US.items()}
_ADDED = "add_us"  # what the engine does between two steps, on top of a duration
_SPAN = ("start_s", "end_s")
_STARTS = {f"start_{unit}" for unit in UNITS_US}
_MOST_CLIENTS = 100_000
_ROUNDING_US = 2.0  # of three figures that are whole microseconds
_CLIENT = "client"  # pool/number, in our own steps.parquet


@cost_models.register("replay")
@dataclass(frozen=True, slots=True)
class Replay:
    """The n-th step of a client takes as long as the n-th recorded one, whatever is in it.

    ``path`` is a table with a row per step: ``time_us`` (or ``_ms``, ``_s``, ``_ns``); or ``duration_us``, with
    ``add_us`` (before the step) and ``start_us`` where there are such columns; or ``start_s`` and ``end_s``, as in
    the steps.parquet of a run. Of its rows those count that have the values of ``where``, by column, in the order
    of the file. Where the table has the column ``client`` each client of a pool has its own steps; otherwise the
    pool has one client.

    Batches, chunks, cached tokens and preemptions then follow from the engine's rules alone, and can be compared with
    what a real engine did. Nothing is added: no ingest time, no hand-over, no copies.
    """

    path: str
    where: dict[str, Any] = field(default_factory=dict)

    of_hardware: ClassVar[bool] = False  # so there is nobody whose power it could be

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the recorded durations, with tables of their mean for estimates; raises ConfigError."""
        encoder = ["model"] if deployment.part == "encoder" else []
        for name in deployment.beyond_tensors() + encoder:
            raise ConfigError(
                f"{deployment.key}.{name}", "cost=replay has the steps of one engine only; use cost=roofline"
            )
        steps = self._durations(deployment.key.rpartition(".")[2])
        total = sum(len(own) for own in steps)
        mean_ps = max(1, round(sum(sum(own) for own in steps) / total))
        zeros = [0] * (deployment.max_sequences + 1)
        return StepCost(
            tokens_ps=[0] + [mean_ps] * deployment.max_tokens,
            sequences_ps=zeros,
            decode_attention_ps=zeros,
            context_ps=0,
            replayed_ps=steps,
            provenance=(
                f"replay: {total:,} recorded steps of {self.path}, {mean_ps / PS_PER_US:,.0f} µs on average",
            ),
        )

    def hop(self, deployment: Deployment) -> Hop:
        """Raise ConfigError: a recorded step is that of all ranks."""
        raise ConfigError(f"{deployment.key}.pipeline_parallel", "cost=replay has no ranks; expected 1")

    def _durations(self, pool: str) -> tuple[tuple[int, ...], ...]:
        """Return the picoseconds of the steps of each client of a pool."""
        file = open_trace(self.path)
        frame = self._chosen(file.table(file.names, None))
        if not len(frame):
            raise ConfigError("cost.path", f"{self.path} has no such steps; expected one row per step")
        durations = self._picoseconds(frame)
        if _CLIENT not in frame.columns:
            self._check_order(frame, np.arange(len(frame)))
            return (tuple(durations.tolist()),)
        names = [str(name) for name in frame[_CLIENT].to_list()]
        own = [name for name in dict.fromkeys(names) if name.rpartition("/")[0] == pool]
        numbers = sorted(int(number) for name in own if (number := name.rpartition("/")[2]).isdecimal())
        if not numbers or len(numbers) < len(own) or numbers[-1] >= _MOST_CLIENTS:
            have = ", ".join(sorted(set(names))[:8])
            raise ConfigError("cost.path", f"{self.path} has steps of {have}; expected some of {pool}/0")
        clients = np.array(names)
        rows = [np.flatnonzero(clients == f"{pool}/{number}") for number in range(numbers[-1] + 1)]
        for each in rows:
            self._check_order(frame, each)
        return tuple(tuple(durations[each].tolist()) for each in rows)

    def _check_order(self, frame: pl.DataFrame, rows: np.ndarray[Any, np.dtype[np.int64]]) -> None:
        """Raise ConfigError where the steps of a client, in these rows, do not begin one after another."""
        for name in [name for name in frame.columns if name in _STARTS]:
            start = frame[name].cast(float, strict=False).to_numpy()[rows]
            late = np.flatnonzero(np.diff(start) < 0)
            if len(late):
                before, after = rows[late[0]] + 1, rows[late[0] + 1] + 1
                raise ConfigError(
                    "cost.path",
                    f"{self.path}: step {after:,} begins before step {before:,} ({name}); expected the steps in the "
                    "order of their time",
                )

    def _chosen(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        for column, value in self.where.items():
            if column not in frame.columns:
                have = ", ".join(frame.columns)
                raise ConfigError(f"cost.where.{column}", f"no such column in {self.path}, which has: {have}")
            frame = frame.filter(pl.col(column).cast(pl.String) == str(value))
        return frame

    def _picoseconds(self, frame: pl.DataFrame) -> np.ndarray[Any, np.dtype[np.int64]]:
        def numbers(name: str) -> Floats:
            values: Floats = frame[name].cast(float, strict=False).to_numpy()
            return values

        times = [name for name in (*_TIMES, *_DURATIONS) if name in frame.columns]
        if len(times) > 1:
            raise ConfigError("cost.path", f"{self.path} has {' and '.join(times)}; expected one of them")
        if times:
            us = numbers(times[0]) * {**_TIMES, **_DURATIONS}[times[0]]
            if times[0] in _DURATIONS:
                added = numbers(_ADDED) if _ADDED in frame.columns else np.zeros(len(us))
                start = f"start_{times[0].rpartition('_')[2]}"
                unit = _DURATIONS[times[0]]
                us = _following(numbers(start) * unit, us, added) if start in frame.columns else us + added
        elif set(_SPAN) <= set(frame.columns):
            us = (numbers("end_s") - numbers("start_s")) * US_PER_S
        else:
            raise ConfigError(
                "cost.path",
                f"{self.path} has no time of a step; expected the column time_us, duration_us, or start_s and end_s",
            )
        wrong = np.flatnonzero(~(np.isfinite(us) & (us > 0)))
        if len(wrong):
            raise ConfigError(
                "cost.path", f"{self.path}: step {wrong[0] + 1:,} has no time above 0 ({us[wrong[0]]:g} µs)"
            )
        return np.rint(us * PS_PER_US).astype(np.int64)


def _following(start_us: Floats, duration_us: Floats, added_us: Floats) -> Floats:
    """Return the time of each step from its beginning, or from the end of the step before it where it follows that.

    Recorded instants are rounded, so that durations alone drift away from them.
    """
    begin, end = start_us - added_us, start_us + duration_us
    before = np.concatenate([begin[:1], end[:-1]])
    return np.asarray(end - np.where(np.abs(begin - before) <= _ROUNDING_US, before, begin))
