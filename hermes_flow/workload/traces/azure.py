"""The format of the Azure Public Dataset's LLM inference traces, 2023, 2024 and 2025.

https://github.com/Azure/AzurePublicDataset: dates to 100 ns (2024 with an offset), tokens in and out,
and images in the multimodal trace of 2025.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import IMAGES, TOKENS, Date
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("azure")
class Azure:
    """The Azure traces: TIMESTAMP is a date, and arrivals count from the earliest request."""

    columns = (
        Column("TIMESTAMP", "arrival_ns", Date()),
        Column("ContextTokens", "input_tokens", TOKENS),
        Column("GeneratedTokens", "output_tokens", TOKENS),
        Column("NumImages", "images", IMAGES, blank=0),
    )
    from_first = True
    prefix_block_tokens = None
