"""Gives single steps the times of a recorded run: its durations one after another, or its speed at that time."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.errors import HermesFlowError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord


def recorded_times(cost: StepCost, index: int) -> RecordedSteps | Drift | None:
    """Return what a recorded run says of the steps of client ``index``; None where the tables alone count."""
    if cost.replayed_ps:
        return RecordedSteps(cost.replayed_ps, index)
    return Drift(cost.drift, cost.drift_ps) if cost.drift else None


def unused_steps(name: str, cost: StepCost, records: Sequence[ClientRecord]) -> list[str]:
    """Return a warning where a run of pool ``name`` took fewer steps than were recorded of its clients."""
    taken = {record.client: _steps(record) for record in records}
    left = {
        client: len(steps) - taken.get(client, 0)
        for client, steps in enumerate(cost.replayed_ps)
        if len(steps) > taken.get(client, 0)
    }
    if not left:
        return []
    client, more = max(left.items(), key=lambda each: each[1])
    others = f", and others of {len(left) - 1} more clients" if len(left) > 1 else ""
    return [
        f"cost=replay: {more:,} of the {len(cost.replayed_ps[client]):,} steps recorded of {name}/{client} were not "
        f"taken{others}; the load, the settings of the pool or its engine differ from those of the recorded run"
    ]


def _steps(record: ClientRecord) -> int:
    return 0 if record.segments is None else int(record.segments[:, STEP_FIELDS.index("steps")].sum())


class RecordedSteps:
    """The recorded durations of client ``index`` of a pool, in picoseconds."""

    __slots__ = ("_durations", "_index", "_taken")

    def __init__(self, by_client: tuple[tuple[int, ...], ...], index: int) -> None:
        self._durations = by_client[index] if index < len(by_client) else ()
        self._index = index
        self._taken = 0

    def end_ps(self, start_ps: int, end_ps: int) -> int:
        """Return when the next step ends that begins at ``start_ps``; raises HermesFlowError where none is left."""
        taken = self._taken
        if taken == len(self._durations):
            raise HermesFlowError(
                f"cost=replay: client {self._index} needs more than the {taken:,} steps recorded of it; the "
                "load, the settings of the pool or its engine differ from those of the recorded run"
            )
        self._taken = taken + 1
        return start_ps + self._durations[taken]


class Drift:
    """The speed of a machine that drifts: a factor on the steps that begin in each window of time."""

    __slots__ = ("_factors", "_window_ps")

    def __init__(self, factors: tuple[float, ...], window_ps: int) -> None:
        self._factors = factors
        self._window_ps = window_ps

    def end_ps(self, start_ps: int, end_ps: int) -> int:
        """Return when a step ends that would take from ``start_ps`` to ``end_ps`` at the usual speed."""
        window = start_ps // self._window_ps
        if window >= len(self._factors):
            return end_ps
        return start_ps + round((end_ps - start_ps) * self._factors[window])
