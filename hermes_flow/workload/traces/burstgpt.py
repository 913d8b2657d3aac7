"""The BurstGPT traces (Wang et al., arXiv 2401.17644): ChatGPT and GPT-4 requests of a campus.

https://github.com/HPMLL/BurstGPT: seconds from midnight of the first day; releases 1 and 2 have six
columns, release 3 also ``Session ID`` (empty for API calls) and ``Elapsed time``.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Clock, Names
from hermes_flow.workload.traces.format import Column, trace_formats

_FAILED = (
    "in BurstGPT a failed request: use a BurstGPT_without_fails file, or take these lines out first, "
    "see docs/workloads.md"
)


@trace_formats.register("burstgpt")
class BurstGPT:
    """The BurstGPT traces. Failed requests, with 0 tokens, are refused, so that none is silently skipped."""

    columns = (
        Column("Timestamp", "arrival_ns", Clock("seconds", 0)),
        Column("Request tokens", "input_tokens", TOKENS, zero=_FAILED),
        Column("Response tokens", "output_tokens", TOKENS, zero=_FAILED),
        Column("Session ID", "session", Names(), blank=-1),
    )
    from_first = False
    prefix_block_tokens = None
