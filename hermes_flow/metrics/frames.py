"""The tables of a run as Polars frames: requests, stages, clients and, on request, LLM steps.

Columns are those of the public contract; instants and durations are seconds (float64), null where there is
none. Polars is imported when the first frame is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.energy import Energies, energies
from hermes_flow.metrics.itl import first_durations_ps
from hermes_flow.metrics.latency import Latencies, latencies, seconds
from hermes_flow.metrics.objectives import loosest_limits, request_values, within_limits
from hermes_flow.metrics.spans import StageSpans, handled_tokens, stage_spans
from hermes_flow.program.program import Program
from hermes_flow.program.units import NS_PER_S, PS_PER_NS, Ints
from hermes_flow.recording.client_states import PAID, POWERED, SERVING, time_in
from hermes_flow.recording.recording import STATUSES, STEP_FIELDS, ClientRecord, Recording

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]


def requests_frame(
    recording: Recording, energy: Energies | None = None, found: Latencies | None = None
) -> pl.DataFrame:
    """Return one row per request, in order of arrival; the requests of sessions are sorted by session.

    ``output_tokens`` are the tokens of the answer (of the last op that writes one), ``model`` is which model wrote
    it, ``ttft_s`` and ``tpot_s`` its latencies; ``cached_tokens`` and ``preemptions`` are summed over ops. Where
    several pipelines run at once, ``pipeline`` is the part that the request takes. A failed request has an arrival
    and no other times. ``tpot_s`` is null for an output of one token. ``energy`` and ``found`` (the latencies) are
    those of the recording, if they are known already.
    """
    import polars as pl

    energy = energy or energies(recording)
    program, requests = recording.program, recording.program.requests
    count = len(requests)
    completed = recording.status == 0
    arrival_s = seconds(recording.arrival_ns)
    finish_s = seconds(recording.finish_ns, completed)
    found = found or latencies(recording)
    answer = found.answer
    emitted = completed & (answer.first_ns >= 0)
    columns = {
        "request": np.arange(count),
        "pipeline": pl.repeat(program.pipeline, count, dtype=pl.String, eager=True)
        if requests.pipeline is None
        else _names(requests.pipelines, requests.pipeline),
        "model": _names(answer.models, answer.model),
        "session": _integers(requests.session, count),
        "arrival_s": _floats(arrival_s),
        "input_tokens": requests.input_tokens,
        "cached_tokens": _summed([record.cached_tokens for record in recording.ops], count),
        "output_tokens": found.output_tokens,
        "first_token_s": _floats(seconds(answer.first_ns, emitted)),
        "finish_s": _floats(finish_s),
        "ttft_s": _floats(found.ttft_s),
        "tpot_s": _floats(found.tpot_s),
        "e2e_s": _floats(found.e2e_s),
        "preemptions": _summed([record.preemptions for record in recording.ops], count),
        "status": _names(STATUSES, recording.status),
        **_operations(recording),
        "slo_met": _slo_met(recording, found),
        "energy_j": _floats(energy.requests_j(count)),
    }
    if any(pool.fleet is not None and pool.fleet.failing is not None for pool in program.pools):
        retries = np.zeros(count, dtype=np.int64)
        retries[list(recording.retried)] = list(recording.retried.values())
        columns["retries"] = retries
    return pl.DataFrame(columns)


def _operations(recording: Recording) -> dict[str, pl.Series]:
    """Return the columns that only runs with traffic classes, tenants or a gateway have."""
    requests, columns = recording.program.requests, {}
    if requests.traffic is not None:
        columns["class"] = _names(requests.classes, requests.traffic)
    if requests.tenant is not None:
        columns["tenant"] = _names(requests.tenants, requests.tenant)
    if requests.images is not None:
        columns["images"] = _integers(requests.images, len(requests))
    if recording.admitted_ns is not None and recording.tries is not None:
        columns["admitted_s"] = _floats(seconds(recording.admitted_ns))
        let_in = recording.admitted_ns >= 0
        columns["turned_away"] = _integers(np.maximum(recording.tries - let_in, 0), len(requests))
    return columns


def stages_frame(recording: Recording, energy: Energies | None = None) -> pl.DataFrame:
    """Return one row per request and stage that it reached, by request and then in pipeline order.

    ``transfer_s`` is the time on the network for what the stage needs, ``bytes`` how much that was;
    ``queue_s`` is start − ready − transfer, ``service_s`` finish − start.
    """
    import polars as pl

    energy = energy or energies(recording)
    program = recording.program
    spans = stage_spans(recording)
    count, width = len(program.requests), len(spans)
    ready = _table([span.ready_ns for span in spans], count)
    start = _table([span.start_ns for span in spans], count)
    finish = _table([span.finish_ns for span in spans], count)
    clients, offsets = _client_names(program)
    client = _table([_client_index(span, offsets) for span in spans], count)
    tokens = _table([_or_missing(span.tokens, count) for span in spans], count)
    transfer = _table([_or_zero(span.transfer_ns, count) for span in spans], count)
    moved = _table([_or_zero(span.bytes, count) for span in spans], count)
    joules = np.column_stack(energy.stages_j).ravel()
    request = np.repeat(np.arange(count), width)
    column = np.tile(np.arange(width), count)
    happened = ready >= 0
    if not happened.all():
        joules = joules[happened]
        ready, start, finish, client, tokens, transfer, moved, request, column = (
            values[happened]
            for values in (ready, start, finish, client, tokens, transfer, moved, request, column)
        )
    pools = [program.pools[span.pool].name for span in spans]
    rows = len(request)
    return pl.DataFrame(
        {
            "request": request,
            "stage": _names([span.stage for span in spans], column),
            "kind": _names([span.kind for span in spans], column),
            "pool": _names(pools, column),
            "client": _names(clients, client),
            "ready_s": _floats(seconds(ready)),
            "start_s": _floats(seconds(start)),
            "finish_s": _floats(seconds(finish)),
            "queue_s": _floats(seconds(start - ready - transfer, start >= 0)),
            "transfer_s": _floats(seconds(transfer)),
            "service_s": _floats(seconds(finish - start, finish >= 0)),
            "tokens": _integers(tokens, rows),
            "bytes": moved,
            "energy_j": _floats(joules),
        }
    )


def clients_frame(recording: Recording, energy: Energies | None = None) -> pl.DataFrame:
    """Return one row per client.

    ``busy_fraction`` is the busy share of the run (of all cores, on a sequential client); ``mean_batch`` the
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
    schema = {
        "client": pl.String,
        "pool": pl.String,
        "hardware": pl.String,
        "model": pl.String,
        "busy_fraction": pl.Float64,
        "steps": pl.Int64,
        "mean_batch": pl.Float64,
        "kv_peak_fraction": pl.Float64,
        "tokens": pl.Int64,
        "energy_j": pl.Float64,
        "cost_usd": pl.Float64,
    }
    fleets = any(pool.fleet is not None for pool in program.pools)
    if fleets:
        schema |= {"up_s": pl.Float64, "accelerator_hours": pl.Float64}
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
        busy = client.busy_ns / (client.capacity * on_ns) if on_ns else None
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
        rows.append(row)
    return pl.DataFrame(rows, schema=schema, orient="row")


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


def steps_frame(recording: Recording) -> pl.DataFrame:
    """Return one row per LLM step: client, start_s, end_s, decodes, decode_context, prefill_tokens.

    ``decode_context`` counts the computed tokens of all decoding sequences as the step starts. Where a client has
    several micro-batches, their steps overlap; they are in order of their starts.
    """
    import polars as pl

    schema = {"client": pl.String, "start_s": pl.Float64, "end_s": pl.Float64}
    schema |= dict.fromkeys(("decodes", "decode_context", "prefill_tokens"), pl.Int64)
    frames = [pl.DataFrame(schema=schema)]
    for client in recording.clients:
        pool = recording.program.pools[client.pool]
        if client.segments is None:
            continue
        segments = client.segments
        if client.lane_rows:
            segments = segments[np.argsort(segments[:, STEP_FIELDS.index("start_ps")], kind="stable")]
        columns = _expanded(segments, client.context_ps)
        name = f"{pool.name}/{client.client}"
        names = pl.repeat(name, len(columns["start_s"]), dtype=pl.String, eager=True)
        frames.append(pl.DataFrame({"client": names, **columns}))
    return pl.concat(frames)


def _expanded(segments: NDArray[np.int64], context_ps: int) -> dict[str, Ints | Floats]:
    """Return the columns of a client's single steps: step i starts where i durations of its segment end."""
    start, end, steps, decodes, context, prefill = (
        segments[:, STEP_FIELDS.index(f)] for f in STEP_FIELDS[:6]
    )
    row = np.repeat(np.arange(len(steps)), steps)
    index = np.arange(len(row)) - np.repeat(np.cumsum(steps) - steps, steps)
    first, growth = first_durations_ps(segments, context_ps)[row], (decodes * context_ps)[row]
    start_ps = start[row] + index * first + growth * (index * (index - 1) // 2)
    last = index == steps[row] - 1
    end_ps = np.where(last, end[row], start_ps + first + growth * index)
    per_s = float(PS_PER_NS * NS_PER_S)
    return {
        "start_s": start_ps / per_s,
        "end_s": end_ps / per_s,
        "decodes": decodes[row],
        "decode_context": context[row] + index * decodes[row],
        "prefill_tokens": prefill[row],
    }


def _step_totals(client: ClientRecord) -> tuple[int, float | None, int]:
    if client.segments is None or not len(client.segments):
        return 0, None, 0
    fields = ("steps", "decodes", "prefill_tokens", "joined")
    steps, decodes, prefill, joined = (client.segments[:, STEP_FIELDS.index(field)] for field in fields)
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
            done = record.finish_ns >= 0
            weights, size = handled_tokens(op)[done], pools[op.pool].count
            totals[op.pool] += np.bincount(record.client[done], weights=weights, minlength=size)
    return [[int(tokens) for tokens in total] for total in totals]


def _slo_met(recording: Recording, found: Latencies) -> pl.Series:
    """Return whether each request keeps within the limits that the SLO sets to single requests."""
    import polars as pl

    slo = recording.program.slo
    limits = loosest_limits(slo)
    if not limits:
        return pl.repeat(None, len(recording.status), dtype=pl.Boolean, eager=True)
    return pl.Series(within_limits(recording, request_values(recording, found, slo), limits))


def _table(columns: Sequence[Ints], rows: int) -> Ints:
    """Return the columns side by side, flattened row by row."""
    table = np.empty((rows, len(columns)), np.int64)
    for index, column in enumerate(columns):
        table[:, index] = column
    return table.ravel()


def _client_names(program: Program) -> tuple[list[str], list[int]]:
    """Return "pool/index" of all clients, and where each pool's begin."""
    names: list[str] = []
    offsets: list[int] = []
    for pool in program.pools:
        offsets.append(len(names))
        names.extend(f"{pool.name}/{index}" for index in range(pool.count))
    return names, offsets


def _client_index(span: StageSpans, offsets: list[int]) -> Ints:
    return np.where(span.client < 0, -1, span.client + offsets[span.pool])


def _or_zero(values: Ints | None, count: int) -> Ints:
    return np.zeros(count, np.int64) if values is None else values


def _or_missing(values: Ints | None, count: int) -> Ints:
    return np.full(count, -1) if values is None else values


def _names(names: Sequence[str], index: NDArray[np.integer]) -> pl.Series:
    """Return ``names[index]``, null where the index is -1."""
    import polars as pl

    known = pl.Series([*names, None], dtype=pl.String)
    return known.gather(np.where(index < 0, len(names), index).astype(np.uint32))


def _summed(columns: Sequence[Ints | None], count: int) -> pl.Series:
    """Return the row sums of the columns there are, -1 counting as nothing; null without any column."""
    given = [np.maximum(column, 0) for column in columns if column is not None]
    return _integers(np.sum(given, axis=0, dtype=np.int64) if given else None, count)


def _integers(values: Ints | None, count: int) -> pl.Series:
    """Return the values, null where they are negative or absent."""
    import polars as pl

    if values is None:
        return pl.repeat(None, count, dtype=pl.Int64, eager=True)
    series = pl.Series(values, dtype=pl.Int64)
    if (values < 0).any():
        series = series.set(pl.Series(values < 0), None)
    return series


def _floats(values: Floats) -> pl.Series:
    """Return the values, null where they are NaN."""
    import polars as pl

    return pl.Series(values, nan_to_null=True)
