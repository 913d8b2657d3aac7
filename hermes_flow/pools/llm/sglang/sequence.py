"""The state of one request in SGLang's scheduler."""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import DecidedSequence
from hermes_flow.pools.llm.sglang.radix_tree import Node, Page


class Sequence(DecidedSequence):
    """One request with the holders of its KV: its first ``protected`` computed tokens belong to the radix tree.

    ``pages`` names the content of prompt and answer, page by page; empty without a tree.
    """

    __slots__ = ("ignore_eos", "node", "pages", "protected")

    def __init__(
        self, task: int, prompt: int, output: int, limit: int, ignore_eos: bool, pages: list[Page]
    ) -> None:
        super().__init__(task, prompt, output, limit)
        self.ignore_eos = ignore_eos
        self.pages = pages
        self.protected = 0
        self.node: Node | None = None
