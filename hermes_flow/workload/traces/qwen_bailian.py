"""The Qwen-Bailian usage traces of Alibaba Cloud: seconds from 0, chats, and hashes of blocks of 16 tokens.

https://github.com/alibaba-edu/qwen-bailian-usagetraces-anon: chat_id, parent_chat_id (-1 for a first turn),
timestamp, input_length, output_length, type, turn, hash_ids.
"""

from __future__ import annotations

from hermes_flow.workload.traces.cells import TOKENS, Blocks, Clock, Whole
from hermes_flow.workload.traces.format import Column, trace_formats


@trace_formats.register("qwen_bailian")
class QwenBailian:
    """The Qwen-Bailian traces: a chat and those that go on from it are one session; turns arrive as recorded."""

    columns = (
        Column("timestamp", "arrival_ns", Clock("seconds", 0)),
        Column("input_length", "input_tokens", TOKENS),
        Column("output_length", "output_tokens", TOKENS),
        Column("chat_id", "chat", Whole("the whole number of a chat")),
        Column("parent_chat_id", "parent_chat", Whole("the whole number of a chat, or -1"), blank=-1),
        Column("hash_ids", "prefixes", Blocks(), blank=0),
    )
    from_first = False
    prefix_block_tokens = 16
    known = ("turn", "type")
