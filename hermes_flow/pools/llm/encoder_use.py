"""The figures of images after a run: how many the clients encoded, and how many they had encoded before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hermes_flow.recording.recording import ClientRecord


@dataclass(frozen=True, slots=True)
class EncoderUse:
    """The images that one client encoded, and those that it found encoded."""

    encoded: int
    found: int


def encoder_summary(records: Sequence[ClientRecord]) -> dict[str, Any]:
    """Return ``{"encoded", "found", "found_share"}`` of the images of all clients of a pool."""
    uses: list[EncoderUse] = [record.own for record in records]
    encoded, found = sum(use.encoded for use in uses), sum(use.found for use in uses)
    return {
        "encoded": encoded,
        "found": found,
        "found_share": found / (found + encoded) if found + encoded else None,
    }
