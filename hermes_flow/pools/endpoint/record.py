"""Records an endpoint's client: its busy time, its tokens and their cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hermes_flow.pools.endpoint.client import EndpointClient
from hermes_flow.pools.endpoint.spec import EndpointClientSpec
from hermes_flow.program.units import NS_PER_S, PS_PER_NS, Ints
from hermes_flow.recording.recording import ClientRecord


@dataclass(frozen=True, slots=True)
class EndpointUse:
    """The calls of one client: ``waited`` of them were delayed by a limit, by ``wait_ns`` in total."""

    calls: int
    rejected: int
    waited: int
    wait_ns: int
    input_tokens: int
    output_tokens: int


def record_endpoint(pool: int, spec: EndpointClientSpec, client: EndpointClient) -> ClientRecord:
    """Return the record of one client. It is busy while any call is under way."""
    calls = np.array(client.calls(), dtype=np.int64).reshape(-1, 6)
    start, finish, prompt, output, tpot, waits = calls.T
    busy_ns, most = _under_way(start, finish)
    use = EndpointUse(
        calls=len(calls),
        rejected=client.rejected,
        waited=int(np.count_nonzero(waits)),
        wait_ns=int(waits.sum()),
        input_tokens=int(prompt.sum()),
        output_tokens=int(output.sum()),
    )
    several = output > 1
    return ClientRecord(
        *(pool, client.index, 1, len(calls), busy_ns),
        even_gaps=np.column_stack((tpot[several] * PS_PER_NS, output[several] - 1)),
        seats=max(1, most),
        seat="call",
        tokens=use.input_tokens + use.output_tokens,
        spent_usd=_spent_usd(spec, use),
        own=use,
    )


def endpoint_summary(records: Sequence[ClientRecord]) -> dict[str, Any]:
    """Return ``{calls, rejected, waited, wait_mean_s, input_tokens, output_tokens, usd}``, summed over the clients.

    ``wait_mean_s`` is the mean over all calls that were not rejected; it is None without any.
    """
    uses: list[EndpointUse] = [record.own for record in records]
    calls = sum(use.calls for use in uses)
    wait_s = sum(use.wait_ns for use in uses) / NS_PER_S
    spent = [record.spent_usd for record in records]
    return {
        "calls": calls,
        "rejected": sum(use.rejected for use in uses),
        "waited": sum(use.waited for use in uses),
        "wait_mean_s": wait_s / calls if calls else None,
        "input_tokens": sum(use.input_tokens for use in uses),
        "output_tokens": sum(use.output_tokens for use in uses),
        "usd": None if None in spent else math.fsum(usd for usd in spent if usd is not None),
    }


def _spent_usd(spec: EndpointClientSpec, use: EndpointUse) -> float | None:
    for_input, for_output = spec.usd_per_million_input_tokens, spec.usd_per_million_output_tokens
    if for_input is None or for_output is None:
        return None
    return (for_input * use.input_tokens + for_output * use.output_tokens) / 1e6


def _under_way(start: Ints, finish: Ints) -> tuple[int, int]:
    """Return for how long any call was under way, and the most that were at once."""
    if not len(start):
        return 0, 0
    at = np.concatenate((start, finish))
    change = np.repeat([1, -1], len(start))
    order = np.lexsort((change, at))  # ends before beginnings
    at, level = at[order], np.cumsum(change[order])
    return int(np.diff(at)[level[:-1] > 0].sum()), int(level.max())
