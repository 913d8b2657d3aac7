"""Our own trace format: units in column names, and columns for everything that a request can have."""

from __future__ import annotations

from hermes_flow.workload.traces.cells import IMAGES, TOKENS, Blocks, Clock, Names, Texts, Truth, Whole
from hermes_flow.workload.traces.format import Column, trace_formats
from hermes_flow.workload.traces.stage_lists import StageLists


@trace_formats.register("native")
class Native:
    """One of ``arrival_s``, ``arrival_ms``, ``arrival_us``, ``arrival_ns`` (from 0), and the tokens in and out.

    A later turn of a session may have a ``delay_ms`` in place of an arrival: the time after the answer before it.
    """

    columns = (
        Column("arrival_s", "arrival_ns", Clock("seconds", 0), unit="named"),
        Column("arrival_ms", "arrival_ns", Clock("milliseconds", 3), unit="named"),
        Column("arrival_us", "arrival_ns", Clock("microseconds", 6), unit="named"),
        Column("arrival_ns", "arrival_ns", Clock("nanoseconds", 9), unit="named"),
        Column("input_tokens", "input_tokens", TOKENS),
        Column("output_tokens", "output_tokens", TOKENS),
        Column("session", "session", Names(), blank=-1),
        Column("priority", "priority", Whole("a whole number"), blank=0),
        Column("model", "model", Texts("the name of a model"), blank=-1, all_or_none=True),
        Column("pipeline", "pipeline", Texts("the name of a pipeline"), blank=-1, all_or_none=True),
        Column("class", "traffic", Texts("the name of a traffic class"), blank=-1),
        Column("tenant", "tenant", Texts("the name of a tenant"), blank=-1),
        Column("site", "site", Texts("the name of a site"), blank=-1, all_or_none=True),
        Column("adapter", "adapter", Texts("the name of an adapter"), blank=-1),
        Column("prefix_hashes", "prefixes", Blocks(), blank=0),
        Column("answer_hashes", "answers", Blocks(), blank=0),
        Column("output_limit", "output_limit", TOKENS, blank=0),
        Column("ignore_eos", "ignore_eos", Truth(), blank=0),
        Column("delay_s", "delay_ns", Clock("seconds", 0), blank=-1),
        Column("delay_ms", "delay_ns", Clock("milliseconds", 3), blank=-1),
        Column("delay_us", "delay_ns", Clock("microseconds", 6), blank=-1),
        Column("delay_ns", "delay_ns", Clock("nanoseconds", 9), blank=-1),
        Column("images", "images", IMAGES, blank=0),
        Column("image_hashes", "image_ids", Blocks(of="image"), blank=0),
        Column("stages", "stages", StageLists(), blank=0),
    )
    from_first = False
    prefix_block_tokens = None
