"""The traces of the Vidur simulator: seconds from 0, prefill and decode tokens.

https://github.com/microsoft/vidur, data/processed_traces. Files without ``arrived_at`` hold lengths only
and are no workload by themselves.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Clock
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("vidur")
class Vidur:
    """The Vidur traces: prefill tokens are the prompt, decode tokens the answer."""

    columns = (
        Column("arrived_at", "arrival_ns", Clock("seconds", 0)),
        Column("num_prefill_tokens", "input_tokens", TOKENS),
        Column("num_decode_tokens", "output_tokens", TOKENS),
    )
    from_first = False
    prefix_block_tokens = None
