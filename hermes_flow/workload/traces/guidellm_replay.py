"""The traces that GuideLLM replays: the columns of Mooncake's traces, with the timestamp in seconds.

https://github.com/vllm-project/guidellm, the trace replay profile. Without the name of the format, the unit of such
a file is decided by what is plausible.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Blocks, Clock, Names
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("guidellm_replay")
class GuideLLMReplay:
    """GuideLLM's replay traces: seconds, prompt tokens and output tokens."""

    columns = (
        Column("timestamp", "arrival_ns", Clock("seconds", 0)),
        Column("input_length", "input_tokens", TOKENS),
        Column("output_length", "output_tokens", TOKENS),
        Column("hash_ids", "prefixes", Blocks(), blank=0),
        Column("session_id", "session", Names(), blank=-1),
    )
    from_first = False
    prefix_block_tokens = None
    by_name_only = True
