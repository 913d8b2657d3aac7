"""The table of requests: the sizes, the latencies and the outcome of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hermes_flow.metrics.energy import Energies, energies
from hermes_flow.metrics.latency import Latencies, latencies, seconds
from hermes_flow.metrics.objectives import loosest_limits, request_values, within_limits
from hermes_flow.metrics.operations import wasted_by_request, wastes
from hermes_flow.metrics.tables.series import floats, in_turn, integers, names, summed
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import STATUSES, Recording

if TYPE_CHECKING:
    import polars as pl


def requests_frame(
    recording: Recording,
    energy: Energies | None = None,
    found: Latencies | None = None,
    first: int = 0,
) -> pl.DataFrame:
    """Return one row per request, in order of arrival; the requests of sessions are sorted by session.

    ``output_tokens`` are the tokens of the answer (of the last op that writes one), ``model`` is which model wrote
    it, ``ttft_s`` and ``tpot_s`` its latencies; ``cached_tokens`` and ``preemptions`` are summed over ops. Where
    several pipelines run at once, ``pipeline`` is the part that the request takes. A failed request has an arrival
    and no other times. ``tpot_s`` is null for an output of one token. ``energy`` and ``found`` (the latencies) are
    those of the recording, if they are known already. ``first`` is the number of the first request, where the
    recording is a piece of a longer one.
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
        "request": np.arange(first, first + count),
        "pipeline": in_turn((program.pipeline,), count)
        if requests.pipeline is None
        else names(requests.pipelines, requests.pipeline),
        "model": names(answer.models, answer.model),
        "session": integers(requests.session, count),
        "arrival_s": floats(arrival_s),
        "input_tokens": requests.input_tokens,
        "cached_tokens": summed([record.cached_tokens for record in recording.ops], count),
        "output_tokens": found.output_tokens,
        "first_token_s": floats(seconds(answer.first_ns, emitted)),
        "finish_s": floats(finish_s),
        "ttft_s": floats(found.ttft_s),
        "tpot_s": floats(found.tpot_s),
        "e2e_s": floats(found.e2e_s),
        "preemptions": summed([record.preemptions for record in recording.ops], count),
        "status": names(STATUSES, recording.status),
        **_operations(recording),
        "slo_met": _slo_met(recording, found),
        "energy_j": floats(energy.requests_j(count)),
    }
    failing = [pool.fleet.failing for pool in program.pools if pool.fleet is not None]
    if any(one is not None for one in failing):
        columns["retries"] = _by_request(recording.retried, count)
    if any(one is not None and one.migrates for one in failing):
        columns["migrations"] = _by_request(recording.migrated, count)
    if program.retries is not None:
        columns["given_up"] = _by_request(recording.given_up, count)
    if wastes(recording):
        tokens, spent_ns = wasted_by_request(recording)
        columns["wasted_tokens"] = tokens
        columns["wasted_s"] = floats(seconds(spent_ns))
    return pl.DataFrame(columns)


def _by_request(counts: dict[int, int], requests: int) -> Ints:
    """Return counts of some requests as a column; 0 for the others."""
    column = np.zeros(requests, dtype=np.int64)
    column[list(counts)] = list(counts.values())
    return column


def _operations(recording: Recording) -> dict[str, pl.Series]:
    """Return the columns that only runs with tiers, traffic classes, tenants or a gateway have."""
    requests, columns = recording.program.requests, {}
    found = [record.tier_hits for record in recording.ops if record.tier_hits is not None]
    for tier in dict.fromkeys(tier for hits in found for tier in hits):
        columns[f"{tier}_hit_tokens"] = summed([hits.get(tier) for hits in found], len(requests))
    if requests.traffic is not None:
        columns["class"] = names(requests.classes, requests.traffic)
    if requests.tenant is not None:
        columns["tenant"] = names(requests.tenants, requests.tenant)
    if requests.adapter is not None:
        columns["adapter"] = names(requests.adapters, requests.adapter)
        for name in ("adapter_load", "adapter_wait"):
            known = [getattr(own, f"{name}_ns") for own in recording.ops]
            if any(own is not None for own in known):
                columns[f"{name}_s"] = floats(seconds(summed(known, len(requests)).to_numpy()))
    sites, travel = recording.program.sites, recording.travel
    if sites is not None and travel is not None:
        columns["user_site"] = names(sites.names, sites.user)
        columns["site"] = names(sites.names, travel.site)
        columns["to_site_s"] = floats(seconds(travel.out_ns, travel.site >= 0))
        columns["from_site_s"] = floats(seconds(travel.back_ns, travel.site >= 0))
        columns["transfer_usd"] = floats(sites.transfer_usd(travel.site) + travel.earlier_usd)
        if sites.moves:
            columns["site_changes"] = integers(travel.moved, len(requests))
    if requests.images is not None:
        columns["images"] = integers(requests.images, len(requests))
    if recording.admitted_ns is not None and recording.tries is not None:
        columns["admitted_s"] = floats(seconds(recording.admitted_ns))
        let_in = recording.admitted_ns >= 0
        columns["turned_away"] = integers(np.maximum(recording.tries - let_in, 0), len(requests))
    return columns


def _slo_met(recording: Recording, found: Latencies) -> pl.Series:
    """Return whether each request keeps within the limits that the SLO sets to single requests."""
    import polars as pl

    slo = recording.program.slo
    limits = loosest_limits(slo)
    if not limits:
        return pl.repeat(None, len(recording.status), dtype=pl.Boolean, eager=True)
    return pl.Series(within_limits(recording, request_values(recording, found, slo), limits))
