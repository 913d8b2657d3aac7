"""The time of scans over the prompts of a step, in which the heads of a prompt work side by side."""

from __future__ import annotations

from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class ScanCost:
    """The scans of all layers of one kind in one step, in picoseconds.

    A head takes the tokens of a prompt one after another, so a step lasts at least as long as its longest chunk. The
    heads of all prompts share the device, so it also lasts as long as the work of all of them.
    """

    chain_ps: int
    """By token of a chunk, for one head in each layer."""
    work_ps: int
    """By token of all chunks, for all heads on the device that has them all at work."""
    extra_tokens: int = 0
    """What a chunk takes besides its tokens, as tokens."""

    def step_ps(self, chunks: int, longest: int, count: int) -> int:
        """Return the time of ``count`` chunks with ``chunks`` tokens in all, the longest of which has ``longest``."""
        chain = self.chain_ps * (longest + self.extra_tokens)
        return max(chain, self.work_ps * (chunks + count * self.extra_tokens))

    def scaled(self, factor: float) -> ScanCost:
        """Return the cost with every duration times ``factor``, rounded to picoseconds."""
        return ScanCost(round(factor * self.chain_ps), round(factor * self.work_ps), self.extra_tokens)
