"""The traces of the Vidur simulator: seconds from 0, prefill and decode tokens.

https://github.com/microsoft/vidur, data/processed_traces. Files without ``arrived_at`` hold lengths only, and need
``workload.arrivals``. Forks add ``session_id`` and ``block_hash_ids``, joined by |, of blocks
whose size they do not say.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Blocks, Clock, Names
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("vidur")
class Vidur:
    """The Vidur traces: prefill tokens are the prompt, decode tokens the answer."""

    columns = (
        Column("arrived_at", "arrival_ns", Clock("seconds", 0)),
        Column("num_prefill_tokens", "input_tokens", TOKENS),
        Column("num_decode_tokens", "output_tokens", TOKENS),
        Column("session_id", "session", Names(), blank=-1),
        Column("block_hash_ids", "prefixes", Blocks(), blank=0),
    )
    from_first = False
    prefix_block_tokens = None
