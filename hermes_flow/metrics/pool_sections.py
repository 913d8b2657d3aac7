"""The sections of the summary that only some kinds of pools have."""

from __future__ import annotations

from typing import Any

from hermes_flow.pools.kind import kind_called
from hermes_flow.recording.recording import Recording


def pool_sections(recording: Recording) -> dict[str, Any]:
    """Return ``{section: {pool: {…}}}``; it is empty if no pool has sections."""
    sections: dict[str, Any] = {}
    for index, pool in enumerate(recording.program.pools):
        own = [client for client in recording.clients if client.pool == index]
        for section, figures in kind_called(pool.client.kind).summarize(pool, own).items():
            sections.setdefault(section, {})[pool.name] = figures
    return sections


def pool_warnings(recording: Recording) -> list[str]:
    """Return what pools have to say about the run before its results are used."""
    found: list[str] = []
    for index, pool in enumerate(recording.program.pools):
        own = [client for client in recording.clients if client.pool == index]
        found += kind_called(pool.client.kind).run_warnings(pool, own, recording.end_ns)
    if any(op.context is not None for op in recording.program.ops):
        from hermes_flow.metrics.waiting_contexts import context_warnings

        found += context_warnings(recording)
    return found
