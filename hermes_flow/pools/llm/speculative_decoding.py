"""Speculative decoding: the number of tokens that each step gains."""

from __future__ import annotations

from hermes_flow.pools.llm.batch import RunningBatch


class Speculation:
    """The token gains of a client's decode steps: whole numbers with the expected mean, the same for all sequences.

    After n steps a sequence has gained floor(n·e) tokens, e the expected number per step (Leviathan et al. 2023,
    arXiv 2211.17192, equation 1). Which sequence is lucky in which step is not drawn: the mean is what differs
    between deployments.
    """

    __slots__ = ("_denominator", "_numerator", "_rest")

    def __init__(self, expected: tuple[int, int]) -> None:
        self._numerator, self._denominator = expected
        self._rest = 0

    def gain(self) -> int:
        """Return the tokens that the next step gains, at least 1."""
        gained, self._rest = divmod(self._rest + self._numerator, self._denominator)
        return gained

    def gain_more(self, batch: RunningBatch, end_ps: int, ended: list[int]) -> list[tuple[int, int]]:
        """Let the decoding sequences gain the accepted tokens, as far as blocks are free; ended ones go to ``ended``.

        Returns for each further token how many sequences gain it, and their context before.
        """
        more: list[tuple[int, int]] = []
        for _ in range(self.gain() - 1):
            if not batch.decodes or batch.needed_blocks() > batch.free:
                break
            more.append((batch.decodes, batch.context))
            ended += batch.decode_again(end_ps)
        ended.sort()  # a step delivers sequence by sequence, in order of admission
        return more
