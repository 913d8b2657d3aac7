"""The traces of splitwise-sim: seconds from 0, and the sizes of prompt and answer in tokens.

https://github.com/Mutinifni/splitwise-sim, traces/: request_id, request_type, application_id, arrival_timestamp,
batch_size, prompt_size, token_size.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Clock, Whole
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("splitwise")
class Splitwise:
    """The splitwise-sim traces: ``prompt_size`` is the prompt, ``token_size`` the answer."""

    columns = (
        Column("arrival_timestamp", "arrival_ns", Clock("seconds", 0)),
        Column("prompt_size", "input_tokens", TOKENS),
        Column("token_size", "output_tokens", TOKENS),
        Column("batch_size", None, Whole("1, a row per request", least=1, most=1), blank=1),
    )
    from_first = False
    prefix_block_tokens = None
