"""The table of LLM steps, which is large and built on request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.itl import first_durations_ps
from hermes_flow.program.units import NS_PER_S, PS_PER_NS, Ints
from hermes_flow.recording.recording import STEP_FIELDS, Recording

if TYPE_CHECKING:
    import polars as pl

Floats = NDArray[np.float64]


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
