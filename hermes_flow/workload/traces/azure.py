"""The format of the Azure Public Dataset's LLM inference traces, 2023 and 2024.

https://github.com/Azure/AzurePublicDataset: dates to 100 ns (2024 with an offset), tokens in and out.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Date
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("azure")
class Azure:
    """The Azure traces: TIMESTAMP is a date, and arrivals count from the earliest request."""

    columns = (
        Column("TIMESTAMP", "arrival_ns", Date()),
        Column("ContextTokens", "input_tokens", TOKENS),
        Column("GeneratedTokens", "output_tokens", TOKENS),
    )
    from_first = True
    prefix_block_tokens = None
