"""Estimates what twice the slots for LoRA adapters would save of the time that requests wait for one."""

from __future__ import annotations

import numpy as np

from hermes_flow.metrics.fleets import mean_clients
from hermes_flow.metrics.why.loads import arrival_span_s
from hermes_flow.program.pools import AdapterSpec
from hermes_flow.program.same_bits import exp, total
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.client_states import SERVING
from hermes_flow.recording.recording import Recording


def slots_gain(recording: Recording, pool: int, adapters: AdapterSpec) -> float:
    """Return the share of the waits for slots that twice as many would save.

    Where nobody waited for a slot, a client would have its mean number of requests in service, each with an adapter
    drawn by the shares of all requests. Twice the slots save all waits if they are as many as the different ones
    among these on average, and else in proportion.
    """
    requests, span_s = recording.program.requests, arrival_span_s(recording)
    if requests.adapter is None or span_s <= 0:
        return 0.0
    served_ns = 0
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        if op.pool == pool:
            over = (record.start_ns >= 0) & (record.finish_ns >= 0)
            served_ns += int((record.finish_ns - record.start_ns)[over].sum())
    clients = max(1.0, mean_clients(recording, SERVING)[pool])
    in_service = served_ns / NS_PER_S / span_s / clients
    shares = np.bincount(requests.adapter[requests.adapter >= 0]) / len(requests)
    different = total(1.0 - exp(-in_service * shares))
    return min(1.0, 2 * adapters.slots / max(different, 1e-9))
