"""The time of one forward pass, as tables and an affine formula for decodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from hermes_flow.program.scan_cost import ScanCost


@dataclass(frozen=True)
class StepCost:
    """The time of one forward pass, as tables and an affine formula for decodes (all in picoseconds).

    A step that schedules ``decodes`` decoding sequences over ``decode_context`` already computed tokens in all, and
    prefill chunks (chunk, context)…, takes

        tokens_ps[decodes·tokens_per_decode + Σ chunk] + sequences_ps[decodes + number of chunks]
        + decode_attention_ps[decodes] + context_ps·decode_context
        + prefill_launch_ps (if there is a chunk)
        + Σ prefill_ps(chunk, context)
        + scan_ps (if there is a chunk)

    ``tokens_ps`` covers 0 … the longest step a client may plan, ``sequences_ps`` and ``decode_attention_ps``
    0 … max_num_seqs. Where decodes that share a step with a chunk take another time than alone,
    ``mixed_attention_ps`` and ``mixed_context_ps`` stand in for ``decode_attention_ps`` and ``context_ps``.

    With ``attention_ranks`` (data-parallel attention) these are the tables of one rank, whose slope by context is
    ``rank_context_ps``. A step takes the slowest rank's time by its own sequences (``of_rank``), and ``experts_ps``
    of all tokens, but what of that runs while the rank's host launches kernels (``beside_experts_ps``). ``step_ps``
    and ``decode_ps`` are then the time where the sequences are spread evenly: decodes and their context in equal
    parts (``context_ps`` is a rank's slope over the ranks), and each chunk, in order, on the rank with the fewest
    tokens so far.
    """

    tokens_ps: list[int]
    sequences_ps: list[int]
    decode_attention_ps: list[int]
    context_ps: int
    prefill_launch_ps: int = 0
    prefill_pair_ps: float = 0.0  # per query-key pair of a causal prefill, all layers
    prefill_half_length: float = 0.0  # sequence length at which prefill attention reaches half its rate
    prefill_context_ps: int = 0  # per already computed token of a prefilling sequence
    ingest_ns: int = 0  # from a request's arrival at the client until its scheduler sees it
    provenance: tuple[str, ...] = ()
    tokens_per_decode: int = 1  # with speculation: the drafted tokens and the one before them
    prefill_token_ps: int = 0  # per token of a chunk: what the draft model's prefill adds
    attention_ranks: int = 1
    rank_context_ps: int = 0  # per computed token of a decoding sequence, on its own rank
    experts_ps: list[int] = field(default_factory=list)  # by tokens of all ranks; empty: within tokens_ps
    launching_ps: list[int] = field(default_factory=list)  # by a rank's tokens: experts can run meanwhile
    mixed_attention_ps: list[int] = field(default_factory=list)  # empty: as in steps without a chunk
    mixed_context_ps: int = 0
    rank_mixed_context_ps: int = 0  # with ``attention_ranks``, as ``rank_context_ps``
    replayed_ps: tuple[
        tuple[int, ...], ...
    ] = ()  # by client, what its steps take in their order; else: the tables
    scans: tuple[ScanCost, ...] = ()  # over the prompts of a step
    idle_ps: list[int] = field(default_factory=list)  # by tokens, in which the device waits for launches
    drift: tuple[float, ...] = ()  # factors on single steps that begin in each window of ``drift_ps``; then 1
    drift_ps: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: equal costs have the same bytes, whatever was looked up in them."""
        return {own.name: getattr(self, own.name) for own in fields(self)}

    @cached_property
    def decode_ps(self) -> list[int]:
        """The time of a pure decode step by number of sequences, without the context term."""
        attention = self.decode_attention_ps
        width, ranks, experts = self.tokens_per_decode, self.attention_ranks, self.experts_ps
        beside = self.beside_experts_ps
        most = (min(len(attention), (len(self.tokens_ps) - 1) // width + 1) - 1) * ranks + 1
        fullest = [-(-n // ranks) for n in range(most)]
        table = [self.tokens_ps[n * width] + self.sequences_ps[n] + attention[n] for n in fullest]
        if not experts:
            return table
        own = [(n * width, -(-n // ranks) * width) for n in range(most)]
        return [local + beside(experts[all_], rank) for local, (all_, rank) in zip(table, own, strict=True)]

    @cached_property
    def first_chunk_ps(self) -> list[int]:
        """``prefill_ps(n, 0)`` by ``n``, from the same operations on floats."""
        import numpy as np

        tokens = np.arange(len(self.tokens_ps))
        duration = self.prefill_token_ps * tokens
        if self.prefill_pair_ps:
            tokens[0] = 1  # no chunk is empty
            pairs = tokens * (0.5 * tokens)
            pace = self.prefill_pair_ps * pairs * (1.0 + self.prefill_half_length / tokens)
            duration += (pace + 0.5).astype(np.int64)
        chunks: list[int] = duration.tolist()
        return chunks

    @cached_property
    def of_rank(self) -> StepCost:
        """The time of one rank's part of a step by its own sequences, without the experts that all ranks share."""
        if self.attention_ranks == 1:  # the tables are those of a rank
            return self
        return replace(
            self,
            attention_ranks=1,
            context_ps=self.rank_context_ps,
            mixed_context_ps=self.rank_mixed_context_ps,
            experts_ps=[],
            launching_ps=[],
        )

    def in_lockstep(self, ranks: int) -> StepCost:
        """Return the cost of ``ranks`` that each take this one for their own sequences, and wait for each other."""
        if ranks == 1:
            return self
        return replace(
            self,
            attention_ranks=ranks,
            rank_context_ps=self.context_ps,
            context_ps=round(self.context_ps / ranks),
            rank_mixed_context_ps=self.mixed_context_ps,
            mixed_context_ps=round(self.mixed_context_ps / ranks),
        )

    def beside_experts_ps(self, experts_ps: int, tokens: int) -> int:
        """The time that experts add to a rank of ``tokens`` own tokens.

        They take ``experts_ps``, and run while the host launches the kernels of a step without CUDA graphs.
        """
        return max(0, experts_ps - self.launching_ps[tokens]) if self.launching_ps else experts_ps

    def prefill_ps(self, chunk: int, context: int) -> int:
        """The additional time of a prefill of ``chunk`` tokens after ``context`` computed ones: its attention."""
        duration = self.prefill_context_ps * context + self.prefill_token_ps * chunk
        if self.prefill_pair_ps:
            length = chunk + context
            pairs = chunk * (context + 0.5 * chunk)
            duration += int(self.prefill_pair_ps * pairs * (1.0 + self.prefill_half_length / length) + 0.5)
        return duration

    def scan_ps(self, chunks: int, longest: int, count: int, tokens: int) -> int:
        """The additional time of scans over ``count`` chunks with ``chunks`` tokens in all, in a step of ``tokens``.

        What the device would do while it waits for launches takes no additional time.
        """
        duration = sum(scan.step_ps(chunks, longest, count) for scan in self.scans)
        return max(0, duration - self.idle_ps[tokens]) if self.idle_ps else duration

    def step_ps(self, prefills: list[tuple[int, int]], decodes: int, decode_context: int) -> int:
        """The time of a whole step, term by term as in the class docstring; faster paths must equal it."""
        mixed = bool(prefills and self.mixed_attention_ps)
        duration = (self.mixed_context_ps if mixed else self.context_ps) * decode_context if decodes else 0
        if self.attention_ranks == 1:
            return duration + self._local_ps(prefills, decodes, mixed)
        each, left = divmod(decodes, self.attention_ranks)
        running = [each + (rank < left) for rank in range(self.attention_ranks)]
        tokens = [count * self.tokens_per_decode for count in running]
        chunks: list[list[tuple[int, int]]] = [[] for _ in running]
        for prefill in prefills:
            rank = tokens.index(min(tokens))
            tokens[rank] += prefill[0]
            chunks[rank].append(prefill)
        experts = self.experts_ps[sum(tokens)] if self.experts_ps else 0
        return duration + max(
            self._local_ps(own, count, mixed) + self.beside_experts_ps(experts, rank_tokens)
            for own, count, rank_tokens in zip(chunks, running, tokens, strict=True)
        )

    def _local_ps(self, prefills: list[tuple[int, int]], decodes: int, mixed: bool) -> int:
        """One rank's part of a step, without the context of its decodes."""
        tokens = decodes * self.tokens_per_decode + sum(chunk for chunk, _ in prefills)
        duration = self.tokens_ps[tokens] + self.sequences_ps[decodes + len(prefills)]
        if decodes:
            duration += (self.mixed_attention_ps if mixed else self.decode_attention_ps)[decodes]
        if prefills:
            duration += self.prefill_launch_ps + sum(self.prefill_ps(chunk, past) for chunk, past in prefills)
            if self.scans:
                chunks = [chunk for chunk, _ in prefills]
                duration += self.scan_ps(sum(chunks), max(chunks), len(chunks), tokens)
        return duration

    def scaled(self, factor: float) -> StepCost:
        """Return the cost with every duration of a step times ``factor``, rounded to picoseconds.

        The ingest time, which is no part of a step, stays.
        """

        def times(values: Sequence[int]) -> list[int]:
            return [round(factor * value) for value in values]

        return replace(
            self,
            tokens_ps=times(self.tokens_ps),
            sequences_ps=times(self.sequences_ps),
            decode_attention_ps=times(self.decode_attention_ps),
            context_ps=round(factor * self.context_ps),
            rank_context_ps=round(factor * self.rank_context_ps),
            prefill_launch_ps=round(factor * self.prefill_launch_ps),
            prefill_pair_ps=factor * self.prefill_pair_ps,
            prefill_context_ps=round(factor * self.prefill_context_ps),
            prefill_token_ps=round(factor * self.prefill_token_ps),
            experts_ps=times(self.experts_ps),
            launching_ps=times(self.launching_ps),
            mixed_attention_ps=times(self.mixed_attention_ps),
            mixed_context_ps=round(factor * self.mixed_context_ps),
            rank_mixed_context_ps=round(factor * self.rank_mixed_context_ps),
            scans=tuple(scan.scaled(factor) for scan in self.scans),
            idle_ps=times(self.idle_ps),
            replayed_ps=tuple(tuple(times(steps)) for steps in self.replayed_ps),
        )
