"""Figures of the gateway, and of the work that came to nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.energy import Energies
from hermes_flow.program.same_bits import mean, total
from hermes_flow.program.units import NS_PER_S, Ints
from hermes_flow.recording.recording import Recording


def operations_summary(recording: Recording, energy: Energies) -> dict[str, Any]:
    """Return the sections ``admission`` and ``wasted`` of the summary, those there is something for."""
    sections: dict[str, Any] = {}
    if recording.admitted_ns is not None and recording.tries is not None:
        sections["admission"] = _admission(recording)
    if recording.program.retries is not None:
        sections["user_retries"] = _user_retries(recording)
    if wastes(recording):
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
            "mean": mean(waits) if len(waits) else None,
            "p50": float(np.percentile(waits, 50)) if len(waits) else None,
            "p99": float(np.percentile(waits, 99)) if len(waits) else None,
        },
        "most_queued": recording.most_queued,
        "retries": int((recording.tries[came] - 1).sum()),
    }


def _user_retries(recording: Recording) -> dict[str, Any]:
    """Return on how many requests users gave up, how often, and how many of them were answered in the end."""
    again = np.array(list(recording.given_up), dtype=np.int64)
    return {
        "requests": len(again),
        "times": sum(recording.given_up.values()),
        "completed": int((recording.status[again] == 0).sum()),
    }


def _wasted(recording: Recording, energy: Energies) -> dict[str, Any]:
    """Return the work that came to nothing: requests, tokens, seconds of service, and joules.

    It is that of requests which did not complete, and of tasks that were lost and began anew. The joules of these
    are not known apart from the work of others: each of their tokens counts with the mean of all such tokens.
    """
    lost = recording.status != 0
    tokens, service_ns = wasted_by_request(recording)
    joules = energy.requests_j(len(lost))[lost]
    known = joules[~np.isnan(joules)]
    again_j = _lost_j(recording, energy)
    begun = _begun(recording, lost)
    begun[[request for request, spent in recording.lost_ns.items() if spent]] = True
    begun[[request for request, spent in recording.lost_tokens.items() if spent]] = True
    return {
        "requests": int(begun.sum()),
        "tokens": int(tokens.sum()),
        "service_s": int(service_ns.sum()) / NS_PER_S,
        "energy_j": total(known) + (again_j or 0.0) if len(known) or again_j is not None else None,
    }


def _lost_j(recording: Recording, energy: Energies) -> float | None:
    """Return the joules of tasks that were lost and began anew; None where there are none, or nothing is known."""
    answers = sum(recording.lost_answers.values())
    prompts = sum(recording.lost_tokens.values()) - answers
    parts = [(prompts, energy.prompt_token_j), (answers, energy.answer_token_j)]
    joules = [tokens * each for tokens, each in parts if tokens and not np.isnan(each)]
    return math.fsum(joules) if joules else None


def wastes(recording: Recording) -> bool:
    """Return whether a run may have done work that came to nothing: requests were given up, or clients fail."""
    pools = recording.program.pools
    if recording.program.retries is not None:
        return True
    return any(record.cut_ns is not None for record in recording.ops) or any(
        pool.fleet is not None and pool.fleet.failing is not None for pool in pools
    )


def wasted_by_request(recording: Recording) -> tuple[Ints, Ints]:
    """Return the tokens and the ns of service of each request that came to nothing.

    Tokens are those of prompts that were computed, and of answers that were generated.
    """
    lost = recording.status != 0
    tokens, service_ns = (np.zeros(len(lost), dtype=np.int64) for _ in range(2))
    for op, record in zip(recording.program.ops, recording.ops, strict=True):
        whole = lost & (record.finish_ns >= 0) & (record.client >= 0)
        cut = np.zeros(len(lost), np.bool_) if record.cut_ns is None else lost & (record.cut_ns >= 0)
        service_ns += np.where(whole, record.finish_ns - record.start_ns, 0)
        if record.cut_ns is not None:
            service_ns += np.where(cut, record.cut_ns - record.start_ns, 0)
        if op.llm is None:
            continue
        own = np.zeros(len(lost), dtype=np.int64)
        if op.kv is None:
            own += _of(op.llm.prompt, record.cut_prompt, whole, cut)
            if record.cached_tokens is not None:
                own -= np.where(whole | cut, np.maximum(record.cached_tokens, 0), 0)
        tokens += np.maximum(own, 0)
        if op.generate is not None:
            answer = _of(op.llm.output, record.cut_answer, whole, cut)
            if op.kv is not None:
                answer -= whole | cut  # the prefill has generated the first token
            tokens += np.maximum(answer, 0)
    for column, spent in ((tokens, recording.lost_tokens), (service_ns, recording.lost_ns)):
        column[list(spent)] += np.array(list(spent.values()), dtype=np.int64)
    return tokens, service_ns


def _begun(recording: Recording, lost: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the lost requests any work was done for."""
    begun = np.zeros(len(lost), np.bool_)
    for record in recording.ops:
        begun |= lost & (record.start_ns >= 0)
    return begun


def _of(
    whole_tokens: Ints, cut_tokens: Ints | None, whole: NDArray[np.bool_], cut: NDArray[np.bool_]
) -> Ints:
    """Return the tokens of tasks that were done as a whole, and of those that were cut."""
    tokens: Ints = np.where(whole, whole_tokens, 0)
    return tokens if cut_tokens is None else np.where(cut, cut_tokens, tokens)
