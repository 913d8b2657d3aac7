"""The table of clients: the load, the energy and the cost of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hermes_flow.metrics.energy import Energies, energies
from hermes_flow.metrics.rows import forget
from hermes_flow.metrics.spans import handled_tokens
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import PAID, POWERED, SERVING, time_in
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, Recording
from hermes_flow.recording.stopped_clients import until

if TYPE_CHECKING:
    import polars as pl


def clients_frame(recording: Recording, energy: Energies | None = None) -> pl.DataFrame:
    """Return one row per client.

    ``busy_fraction`` is the busy share of the run (of all cores, on a sequential client), without steps in vain after
    its end; ``mean_batch`` the
    mean over steps of decoding sequences plus those whose prefill ended in the step; ``tokens`` what the
    client's steps processed (prefill and decode), or the tokens of a sequential client's tasks; ``cost_usd``
    the client's price over the run. Step figures are null on sequential clients; on batched ones a step is a pass.

    Of a client that comes and goes, ``busy_fraction`` is of the time that it had power, and ``cost_usd`` of the time
    that it was paid for. Runs with such clients have two columns more: ``up_s``, in which it took or finished tasks,
    and ``accelerator_hours``, for which it was paid.
    """
    import polars as pl

    joules = (energy or energies(recording)).clients_j
    program, end_ns = recording.program, recording.end_ns
    fleets, sites = any(pool.fleet is not None for pool in program.pools), program.sites
    served = _sequential_tokens(recording)
    rows: list[tuple[Any, ...]] = []
    for client, total_j in zip(recording.clients, joules.tolist(), strict=True):
        pool = program.pools[client.pool]
        model, steps, mean_batch, tokens = pool.client.model, client.passes, None, client.tokens
        kv_peak = client.kv_peak_blocks / pool.client.kv_blocks if pool.client.kv_blocks else None
        if client.segments is not None:
            steps, mean_batch, tokens = _step_totals(client)
        elif steps:
            mean_batch = client.tasks / steps
        if tokens is None:
            tokens = served[client.pool][client.client]
        on_ns = time_in(client.states, end_ns, POWERED)
        worked_ns = until(client, end_ns).busy_ns
        busy = worked_ns / (client.capacity * on_ns) if on_ns else None
        price, paid_ns = pool.usd_per_hour, time_in(client.states, end_ns, PAID)
        cost = client.spent_usd if price is None else price * paid_ns / (3600 * NS_PER_S)
        name = f"{pool.name}/{client.client}"
        drawn = None if np.isnan(total_j) else total_j
        row: tuple[Any, ...] = (
            name,
            pool.name,
            pool.hardware,
            model,
            busy,
            steps,
            mean_batch,
            kv_peak,
            tokens,
            drawn,
            cost,
        )
        if fleets:
            up_ns = time_in(client.states, end_ns, SERVING)
            row += (up_ns / NS_PER_S, paid_ns * pool.client.devices / (3600 * NS_PER_S))
        if sites is not None:
            row += (sites.names[sites.clients[client.pool][client.client]],)
        rows.append(row)
        forget(recording)
    return pl.DataFrame(rows, schema=_schema(fleets, sites is not None), orient="row")


def _schema(fleets: bool, sites: bool) -> dict[str, Any]:
    """Return the types of the columns; some are there only with clients that come and go, or with sites."""
    import polars as pl

    schema: dict[str, Any] = dict.fromkeys(("client", "pool", "hardware", "model"), pl.String)
    schema |= {"busy_fraction": pl.Float64, "steps": pl.Int64, "mean_batch": pl.Float64}
    schema |= {
        "kv_peak_fraction": pl.Float64,
        "tokens": pl.Int64,
        "energy_j": pl.Float64,
        "cost_usd": pl.Float64,
    }
    if fleets:
        schema |= {"up_s": pl.Float64, "accelerator_hours": pl.Float64}
    if sites:
        schema |= {"site": pl.String}
    return schema


def _step_totals(client: ClientRecord) -> tuple[int, float | None, int]:
    if client.segments is None or not len(client.segments):
        return 0, None, 0
    fields = ("steps", "decodes", "prefill_tokens", "joined")
    steps, decodes, prefill, joined = (
        client.segments[:, STEP_FIELDS.index(field)].copy() for field in fields
    )
    total, scheduled = int(steps.sum()), int((steps * decodes).sum())
    gained = int(decodes[steps == 0].sum())  # further tokens of speculative steps
    prefilled = int(joined[steps + decodes > 0].sum())  # else: they came computed
    return total, (scheduled + prefilled) / total, scheduled + gained + int(prefill.sum())


def _sequential_tokens(recording: Recording) -> list[list[int]]:
    """Return, by pool and client, the tokens of finished tasks, but for those that write answers."""
    pools = recording.program.pools
    totals = [np.zeros(pool.count) for pool in pools]
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        if op.generate is None:
            done, tokens, client = record.finish_ns >= 0, handled_tokens(op), record.client
            if not done.all():
                tokens, client = tokens[done], client[done]
            totals[op.pool] += np.bincount(client, weights=tokens, minlength=pools[op.pool].count)
    return [[int(tokens) for tokens in total] for total in totals]
