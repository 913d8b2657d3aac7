"""The inter-token gaps computed from segments are those of a client that follows every token."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
import pytest
from metrics.handmade import MS_IN_PS, four_requests, ints, llm_run, segments_ms, single_stage_run

from hermes_flow.metrics.gaps import Gaps
from hermes_flow.metrics.itl import inter_token_gaps

LEVELS = (0.01, 0.25, 0.5, 0.9, 0.99, 1.0)


def expanded(gaps: Gaps) -> list[int]:
    """Every single gap, in order of length."""
    rows = zip(gaps.first, gaps.step, gaps.count, gaps.weight, strict=True)
    return sorted(
        int(first + i * step)
        for first, step, count, weight in rows
        for i in range(count)
        for _ in range(weight)
    )


@dataclass
class _Sequence:
    left: int  # tokens to emit
    context: int
    to_prefill: int
    last_ps: int | None = None  # when its last token came
    joined_in: int | None = None  # the step it joined in, until it decodes


class _TokenByToken:
    """A client that runs random steps, looks at every sequence, and notes the gap before each token."""

    def __init__(self, seed: int, context_ps: int, mixed: bool, preempting: bool) -> None:
        self.random = random.Random(seed)
        self.context_ps, self.mixed, self.preempting = context_ps, mixed, preempting
        self.now = 0
        self.waiting: list[_Sequence] = []
        self.running: list[_Sequence] = []
        self.gaps: list[int] = []
        self.resume_gaps: list[int] = []
        self.steps: list[list[int]] = []

    def run(self, sequences: int) -> _TokenByToken:
        while sequences or self.waiting or self.running:
            if sequences and (self.random.random() < 0.15 or not (self.waiting or self.running)):
                if not self.running:
                    self.now += self.random.randrange(5_000)  # idle until it arrives
                self.waiting.append(self._arrival())
                sequences -= 1
            if self.preempting and len(self.running) > 1 and self.random.random() < 0.1:
                victim = self.running.pop()
                victim.to_prefill = victim.context
                if victim.joined_in is not None:  # it does not go on to decode
                    self.steps[victim.joined_in][-1] -= 1
                self.waiting.insert(0, victim)
            self._step()
        return self

    def _arrival(self) -> _Sequence:
        prompt = self.random.randint(1, 60)
        return _Sequence(self.random.choice((1, 2, 3, 40, 200)), prompt, prompt)

    def _step(self) -> None:
        chunks: list[tuple[_Sequence, int]] = []
        if self.waiting:
            budget = self.random.randint(20, 100)
            for sequence in self.waiting:
                chunk = min(sequence.to_prefill, budget)
                if not chunk:
                    break
                chunks.append((sequence, chunk))
                budget -= chunk
        decoding = list(self.running) if self.mixed or not chunks else []
        context = sum(sequence.context for sequence in decoding)
        prefilled = sum(chunk for _, chunk in chunks)
        start = self.now
        self.now += 1_000 + 40 * len(decoding) + self.context_ps * context + 17 * prefilled
        joined = 0
        for sequence in decoding:
            self._emit(sequence, self.gaps)
            sequence.joined_in = None
            if not sequence.left:
                self.running.remove(sequence)
        for sequence, chunk in chunks:
            sequence.to_prefill -= chunk
            if sequence.to_prefill:
                continue
            self.waiting.remove(sequence)
            self._emit(sequence, self.resume_gaps)
            if sequence.left:
                self.running.append(sequence)
                sequence.joined_in = len(self.steps)
                joined += 1
        self.steps.append([start, self.now, 1, len(decoding), context, prefilled, joined])

    def _emit(self, sequence: _Sequence, gaps: list[int]) -> None:
        if sequence.last_ps is not None:
            gaps.append(self.now - sequence.last_ps)
        sequence.last_ps = self.now
        sequence.left -= 1
        sequence.context += 1

    def segments(self) -> np.ndarray:
        """The steps, stretches of pure decode without a change merged into one row."""
        rows: list[list[int]] = []
        for step in self.steps:
            if rows:
                last = rows[-1]
                grown = last[4] + last[2] * last[3]
                pure = not (last[5] or step[5])
                if pure and last[1] == step[0] and last[3] == step[3] and grown == step[4]:
                    last[1], last[2] = step[1], last[2] + 1
                    continue
            rows.append(list(step))
        return ints(rows).reshape(-1, 7)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("context_ps", [0, 3])
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("preempting", [False, True])
def test_gaps_are_those_of_a_client_that_follows_every_token(seed, context_ps, mixed, preempting):
    client = _TokenByToken(seed, context_ps, mixed, preempting).run(sequences=25)
    segments = client.segments()
    assert len(segments) < len(client.steps)
    gaps = inter_token_gaps(llm_run(segments, context_ps, client.resume_gaps))
    every = sorted(client.gaps + client.resume_gaps)
    assert expanded(gaps) == every
    assert gaps.total == len(every)
    assert gaps.mean() == pytest.approx(sum(every) / len(every), rel=1e-12)
    expected = [every[math.ceil(round(level * len(every), 6)) - 1] for level in LEVELS]
    assert gaps.quantiles(LEVELS) == expected


def test_gaps_of_the_worked_example():
    assert expanded(inter_token_gaps(four_requests())) == [gap * MS_IN_PS for gap in (10, 10, 10, 10, 20)]


def test_a_sequence_that_joins_waits_since_its_own_first_token():
    # Two prefills of 10 and 20 ms in a row, then both decode for 5 ms: gaps of 25 and 5 ms.
    rows = [(0, 10, 1, 0, 0, 100, 1), (10, 30, 1, 0, 0, 200, 1), (30, 35, 1, 2, 300, 0, 0)]
    assert expanded(inter_token_gaps(llm_run(segments_ms(rows)))) == [5 * MS_IN_PS, 25 * MS_IN_PS]


def test_a_prefill_between_decodes_lengthens_the_gap_of_those_who_wait():
    rows = [
        (0, 10, 1, 0, 0, 100, 1),
        (10, 15, 1, 1, 100, 0, 0),
        (15, 45, 1, 0, 0, 300, 1),
        (45, 50, 1, 2, 401, 0, 0),
    ]
    assert [gap // MS_IN_PS for gap in expanded(inter_token_gaps(llm_run(segments_ms(rows))))] == [5, 5, 35]


def test_joiners_preempted_before_they_decode_do_not_add_gaps():
    # Of two that joined, one decodes: one gap, whatever the recorder counted as joined.
    rows = [(0, 10, 1, 0, 0, 100, 1), (10, 30, 1, 0, 0, 200, 1), (30, 35, 1, 1, 300, 0, 0)]
    assert expanded(inter_token_gaps(llm_run(segments_ms(rows)))) == [25 * MS_IN_PS]


def test_resumed_sequences_count_with_their_long_gap():
    gaps = inter_token_gaps(llm_run(segments_ms([]), resume_gaps_ps=[7, 9]))
    assert expanded(gaps) == [7, 9]


def test_without_decodes_there_are_no_gaps():
    for recording in (llm_run(segments_ms([(0, 10, 1, 0, 0, 100, 0)])), single_stage_run([0], [0], [1])):
        gaps = inter_token_gaps(recording)
        assert gaps.total == 0
        assert gaps.quantiles(LEVELS) is None
        assert math.isnan(gaps.mean())


def test_the_quantiles_of_a_long_progression_are_exact_without_expanding_it():
    # 10**9 gaps of 1, 4, 7, …: the k-th is 1 + 3 (k − 1).
    count = 10**9
    gaps = Gaps(ints([1]), ints([3]), ints([count]), ints([1]))
    assert gaps.quantiles([0.5, 0.9]) == [1 + 3 * (count // 2 - 1), 1 + 3 * (count * 9 // 10 - 1)]


def test_one_outlier_of_seconds_does_not_blur_gaps_of_microseconds():
    gaps = Gaps(ints([10**6, 10**6 + 1, 30 * 10**12]), ints([1, 1, 1]), ints([1, 1, 1]), ints([50, 49, 1]))
    assert gaps.quantiles([0.5, 0.51, 0.99, 1.0]) == [10**6, 10**6 + 1, 10**6 + 1, 30 * 10**12]
