"""The record of one link after a run."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.program.quick_dataclass import dataclass


def joined(records: Sequence[LinkRecord]) -> tuple[LinkRecord, ...]:
    """Return the records with those of one name, of links that followed each other, as one."""
    found: dict[str, LinkRecord] = {}
    for record in records:
        before = found.get(record.name)
        found[record.name] = (
            record
            if before is None
            else LinkRecord(
                name=record.name,
                level=record.level,
                bytes_per_ns=record.bytes_per_ns,
                busy_ns=before.busy_ns + record.busy_ns,
                transfers=before.transfers + record.transfers,
                bytes=before.bytes + record.bytes,
                transfer_ns=before.transfer_ns + record.transfer_ns,
                delay_ns=before.delay_ns + record.delay_ns,
                until_ns=max(before.until_ns, record.until_ns),
            )
        )
    return tuple(found.values())


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
