"""The state of one request in TensorRT-LLM's scheduler."""

from __future__ import annotations

from hermes_flow.pools.llm.decided_steps import DecidedSequence


class Sequence(DecidedSequence):
    """One request and its blocks.

    ``names`` are those of the whole blocks of its prompt and answer, by content; empty without block reuse. It holds
    ``held`` blocks, of which ``kept`` are known to the cache by their names. It is ``begun`` while it has any, and
    ``generating`` from the step on that completes its prompt.
    """

    __slots__ = ("begun", "generating", "held", "kept", "names")

    def __init__(self, task: int, prompt: int, output: int, limit: int, names: list[int]) -> None:
        super().__init__(task, prompt, output, limit)
        self.names = names
        self.held = 0
        self.kept: list[int] = []
        self.begun = False
        self.generating = False
