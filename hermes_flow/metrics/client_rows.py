"""Finds the requests whose tasks each client served."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.freed_memory import MANY_REQUESTS
from hermes_flow.recording.recording import Recording


class ClientRows:
    """The requests that have a task of an op on a client, in their order.

    One sort serves all clients of an op. In a long run it takes too much memory, so each client is looked for.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._groups: dict[int, tuple[NDArray[np.intp], NDArray[np.intp]]] = {}

    def of(self, op: int, client: int) -> NDArray[np.intp]:
        """Return the requests of an op (an index) on a client (its number within the pool)."""
        column = self._recording.ops[op].client
        if len(column) >= MANY_REQUESTS:
            return np.flatnonzero(column == client)
        if op not in self._groups:
            count = self._recording.program.pools[self._recording.program.ops[op].pool].count
            few = count < np.iinfo(np.int16).max  # numbers of 16 bits are sorted in linear time
            order = np.argsort(column.astype(np.int16) if few else column, kind="stable")
            self._groups[op] = order, np.searchsorted(column[order], np.arange(count + 1))
        order, begins = self._groups[op]
        return order[begins[client] : begins[client + 1]]
