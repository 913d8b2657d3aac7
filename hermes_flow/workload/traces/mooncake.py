"""The Mooncake traces (Qin et al., FAST'25): milliseconds from 0, tokens, and the prompt's block hashes.

https://github.com/kvcache-ai/Mooncake. Dynamo and AIPerf (https://github.com/ai-dynamo/aiperf) add
``session_id``, and ``delay`` in milliseconds for turns that follow the answer before them.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Blocks, Clock, Names
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("mooncake")
class Mooncake:
    """The Mooncake traces: ``hash_ids`` name the prompt's blocks of 512 tokens; equal ids are equal content."""

    columns = (
        Column("timestamp", "arrival_ns", Clock("milliseconds", 3)),
        Column("input_length", "input_tokens", TOKENS),
        Column("output_length", "output_tokens", TOKENS),
        Column("hash_ids", "prefixes", Blocks(), blank=0),
        Column("session_id", "session", Names(), blank=-1),
        Column("delay", "delay_ns", Clock("milliseconds", 3), blank=-1),
    )
    from_first = False
    prefix_block_tokens = 512
