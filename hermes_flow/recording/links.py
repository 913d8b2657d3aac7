"""The record of one link after a run."""

from __future__ import annotations

from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class LinkRecord:
    """Totals of one link.

    ``busy_ns`` is how long anything moved over it, the last of it until ``until_ns``, ``transfer_ns`` the sum of how
    long each transfer took to do so, ``delay_ns`` by how much longer that was than without other transfers, here or
    elsewhere on their ways.
    """

    name: str
    level: str
    bytes_per_ns: float
    busy_ns: int
    transfers: int
    bytes: int
    transfer_ns: int
    delay_ns: int
    until_ns: int
