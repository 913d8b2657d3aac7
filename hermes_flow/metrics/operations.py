"""Figures of the gateway, and the work that was done for requests that did not complete."""

from __future__ import annotations

from typing import Any

import numpy as np

from hermes_flow.metrics.energy import Energies
from hermes_flow.program.units import NS_PER_S
from hermes_flow.recording.recording import Recording


def operations_summary(recording: Recording, energy: Energies) -> dict[str, Any]:
    """Return the sections ``admission`` and ``wasted`` of the summary, those there is something for."""
    sections: dict[str, Any] = {}
    if recording.admitted_ns is not None and recording.tries is not None:
        sections["admission"] = _admission(recording)
    if any(record.cut_ns is not None for record in recording.ops):
        sections["wasted"] = _wasted(recording, energy)
    return sections


def _admission(recording: Recording) -> dict[str, Any]:
    """Return the waits of those who were let in, and what was turned away."""
    assert recording.admitted_ns is not None
    assert recording.tries is not None
    let_in = recording.admitted_ns >= 0
    waits = (recording.admitted_ns - recording.arrival_ns)[let_in] / NS_PER_S
    came = recording.tries > 0
    return {
        "admitted": int(let_in.sum()),
        "wait_s": {
            "mean": float(waits.mean()) if len(waits) else None,
            "p50": float(np.percentile(waits, 50)) if len(waits) else None,
            "p99": float(np.percentile(waits, 99)) if len(waits) else None,
        },
        "most_queued": recording.most_queued,
        "retries": int((recording.tries[came] - 1).sum()),
    }


def _wasted(recording: Recording, energy: Energies) -> dict[str, Any]:
    """Return the work for requests that did not complete: tokens, seconds of service, and joules.

    Tokens are those of prompts that were computed, and of answers that were generated.
    """
    lost = recording.status != 0
    tokens, service_ns = 0, 0
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        whole = lost & (record.finish_ns >= 0) & (record.client >= 0)
        cut = np.zeros(len(lost), np.bool_) if record.cut_ns is None else lost & (record.cut_ns >= 0)
        service_ns += int((record.finish_ns - record.start_ns)[whole].sum())
        if record.cut_ns is not None:
            service_ns += int((record.cut_ns - record.start_ns)[cut].sum())
        if op.llm is not None:
            computed = _sum(op.llm.prompt, record.cut_prompt, whole, cut) if op.kv is None else 0
            if op.kv is None and record.cached_tokens is not None:
                computed -= int(np.maximum(record.cached_tokens, 0)[whole | cut].sum())
            answer = _sum(op.llm.output, record.cut_answer, whole, cut) if op.generate is not None else 0
            if op.kv is not None:
                answer -= int((whole | cut).sum())  # the prefill has generated the first token
            tokens += max(0, computed) + max(0, answer)
    joules = energy.requests_j(len(lost))[lost]
    known = joules[~np.isnan(joules)]
    return {
        "requests": int(_begun(recording, lost)),
        "tokens": tokens,
        "service_s": service_ns / NS_PER_S,
        "energy_j": float(known.sum()) if len(known) else None,
    }


def _begun(recording: Recording, lost: np.ndarray[Any, np.dtype[np.bool_]]) -> int:
    """Return how many of the lost requests any work was done for."""
    begun = np.zeros(len(lost), np.bool_)
    for record in recording.ops:
        begun |= lost & (record.start_ns >= 0)
    return int(begun.sum())


def _sum(whole_tokens: Any, cut_tokens: Any, whole: Any, cut: Any) -> int:
    total = int(whole_tokens[whole].sum())
    return total if cut_tokens is None else total + int(cut_tokens[cut].sum())
