"""The tables of links, and of the states of clients that come and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording

if TYPE_CHECKING:
    import polars as pl


def links_frame(recording: Recording) -> pl.DataFrame:
    """Return one row per link that was used, and per memory that several clients of a host read.

    ``gb_s`` is what transfers reach of its line rate, ``busy_fraction`` the share of the run in which anything
    moved, ``utilization`` the share of all it could have moved, ``mean_transfers`` how many were under way while
    it was busy, ``transfer_s`` and ``delay_s`` how long a transfer over it took on average, and by how much longer
    that was than it would have been alone: the queueing of links that are shared. Contexts may still be written when
    the last request is over; the run of a link lasts that long.
    """
    import polars as pl

    schema = {
        "link": pl.String,
        "level": pl.String,
        "gb_s": pl.Float64,
        "transfers": pl.Int64,
        "bytes": pl.Int64,
    }
    columns = ("busy_fraction", "utilization", "mean_transfers", "transfer_s", "delay_s")
    schema |= dict.fromkeys(columns, pl.Float64)
    rows = [
        (
            *(link.name, link.level, link.bytes_per_ns, link.transfers, link.bytes),
            link.busy_ns / end_ns if end_ns else None,
            link.bytes / (link.bytes_per_ns * end_ns) if end_ns else None,
            link.transfer_ns / link.busy_ns if link.busy_ns else None,
            link.transfer_ns / link.transfers / NS_PER_S,
            link.delay_ns / link.transfers / NS_PER_S,
        )
        for link in recording.links
        for end_ns in (max(recording.end_ns, link.until_ns),)
    ]
    return pl.DataFrame(rows, schema=schema, orient="row")


def fleet_frame(recording: Recording) -> pl.DataFrame:
    """Return one row per stretch of time in which a client of a fleet was in one state, by client and time.

    States are ``off``, ``starting``, ``up`` (takes tasks), ``draining`` (finishes those it has) and ``down``.
    """
    import polars as pl

    schema = {
        "pool": pl.String,
        "client": pl.String,
        "state": pl.String,
        "begin_s": pl.Float64,
        "end_s": pl.Float64,
    }
    rows = []
    for client in recording.clients:
        if not client.states:
            continue
        name = recording.program.pools[client.pool].name
        ends = [*(at for at, _ in client.states[1:]), recording.end_ns]
        for (at, state), end in zip(client.states, ends, strict=True):
            if at < min(end, recording.end_ns):
                until = min(end, recording.end_ns)
                rows.append((name, f"{name}/{client.client}", state, at / NS_PER_S, until / NS_PER_S))
    return pl.DataFrame(rows, schema=schema, orient="row")
