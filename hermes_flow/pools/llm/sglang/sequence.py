"""The state of one request in SGLang's scheduler."""

from __future__ import annotations

from hermes_flow.pools.llm.sglang.radix_tree import Node, Page


class Sequence:
    """One request: its lengths, its computed tokens and the holders of their KV.

    ``limit`` is the number of tokens that it may write, ``output`` the number that it writes. ``out`` tokens are
    delivered; ``computed`` tokens have KV, of which the first ``protected`` belong to the radix tree. ``retractions``
    counts how often it was thrown out; ``delivered_ps`` is when its last token was. ``pages`` names the content of
    prompt and answer, page by page; empty without a tree.
    """

    __slots__ = (
        "computed",
        "delivered_ps",
        "finished",
        "ignore_eos",
        "in_flight",
        "limit",
        "node",
        "out",
        "output",
        "pages",
        "prompt",
        "protected",
        "retractions",
        "task",
    )

    def __init__(
        self, task: int, prompt: int, output: int, limit: int, ignore_eos: bool, pages: list[Page]
    ) -> None:
        self.task = task
        self.prompt = prompt
        self.output = output
        self.limit = limit
        self.ignore_eos = ignore_eos
        self.pages = pages
        self.out = 0
        self.computed = 0
        self.protected = 0
        self.node: Node | None = None
        self.finished = False
        self.retractions = 0
        self.delivered_ps = -1
        self.in_flight = False  # the step that runs gives it a token

    @property
    def length(self) -> int:
        """Tokens of its prompt and of its answer so far."""
        return self.prompt + self.out
