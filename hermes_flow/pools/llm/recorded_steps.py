"""Hands out the durations of a recorded run to the steps of a client, one after another."""

from __future__ import annotations

from hermes_flow.errors import HermesFlowError


class RecordedSteps:
    """The recorded durations of client ``index`` of a pool, in picoseconds."""

    __slots__ = ("_durations", "_index", "_taken")

    def __init__(self, by_client: tuple[tuple[int, ...], ...], index: int) -> None:
        self._durations = by_client[index] if index < len(by_client) else ()
        self._index = index
        self._taken = 0

    def take(self) -> int:
        """Return how long the next step takes; raises HermesFlowError where the recording has no more steps."""
        taken = self._taken
        if taken == len(self._durations):
            raise HermesFlowError(
                f"cost=replay: client {self._index} needs more than the {taken:,} steps recorded of it; the "
                "load, the settings of the pool or its engine differ from those of the recorded run"
            )
        self._taken = taken + 1
        return self._durations[taken]
