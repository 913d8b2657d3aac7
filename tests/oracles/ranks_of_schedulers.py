"""Naive ranks of data-parallel attention: naive schedulers that decide one after another, whose steps end together.

They follow the rules in words: SGLang gives requests to its ranks in turns; TensorRT-LLM shares one queue, from which
requests go to ranks before each decision, and no rank steps while one that has requests can run none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from oracles import sglang_scheduler as sglang
from oracles import tensorrt_llm_scheduler as tensorrt


def duration(settings: Any, tokens: int, context: int) -> int:
    each, past = (
        (settings.per_token, settings.per_context)
        if isinstance(settings, sglang.Settings)
        else (settings.each, settings.past)
    )
    return int(settings.fixed + each * tokens + past * context)


class SGLangRanks:
    """``count`` schedulers with the same settings; ``steps`` are (start, duration, tokens of each rank)."""

    def __init__(
        self, settings: sglang.Settings, requests: list[sglang.Request], count: int, interval: int = 0
    ) -> None:
        """``interval``: the controller learns so often how many requests the ranks have; 0: never."""
        self.interval = self.next_report = interval
        self.given: list[list[sglang.Request]] = [[] for _ in range(count)]
        self.turns: list[int] = []
        self.requests = sorted(requests, key=lambda one: one.arrival)
        self.ranks = [sglang.SGLangScheduler(settings, []) for _ in range(count)]
        self.settings = settings
        self.steps: list[tuple[int, int, list[int]]] = []

    def give(self, request: sglang.Request) -> None:
        if not self.turns:
            self.turns = list(range(len(self.ranks)))
        rank = self.turns.pop(0)
        self.given[rank].append(request)
        self.ranks[rank].waiting.append(request)

    def report(self, now: int) -> None:
        if not self.interval or now < self.next_report:
            return
        self.next_report = (now // self.interval + 1) * self.interval
        counts = [sum(not request.finished for request in own) for own in self.given]
        self.turns = []
        while len(set(counts)) > 1:
            least = min(counts)
            above = min(count for count in counts if count > least)
            lowest = [rank for rank, count in enumerate(counts) if count == least]
            self.turns += lowest * (above - least)
            for rank in lowest:
                counts[rank] = above

    def run(self) -> None:
        now, coming, end = 0, 0, 0
        idle = True
        before: list[sglang.Step | None] = []
        while True:
            if idle:
                self.report(now)
            while coming < len(self.requests) and self.requests[coming].arrival <= now:
                self.give(self.requests[coming])
                coming += 1
            self.report(now)
            idle = False
            steps = [rank.decide() for rank in self.ranks]
            for rank, step in zip(self.ranks, steps, strict=True):
                rank.last = step
            last_end = end
            if any(steps):
                start = end if any(before) else now
                longest = 0
                for step in steps:
                    if step is not None:
                        tokens = sum(count for _, count in step.tokens)
                        longest = max(longest, duration(self.settings, tokens, step.context))
                        step.epochs = {request: request.epoch for request, _ in step.tokens}
                end = start + longest
                each = [sum(count for _, count in step.tokens) if step else 0 for step in steps]
                self.steps.append((start, longest, each))
            if self.settings.overlap:
                ended, before = before, steps
            else:
                ended, before, last_end = steps, [], end
            for rank, step in zip(self.ranks, steps, strict=True):
                rank.in_flight = step if self.settings.overlap else None
            if any(ended):
                now = last_end
                for rank, step in zip(self.ranks, ended, strict=True):
                    if step is not None:
                        rank.deliver(step, now)
            elif not any(steps):
                for rank in self.ranks:
                    if not rank.waiting and not rank.running and rank.chunked is None:
                        rank.ratio = rank.first_ratio
                if coming == len(self.requests):
                    return
                now = max(now, self.requests[coming].arrival)
                idle = True


class TensorRTRanks:
    """``count`` schedulers with one queue; ``stuck`` says that they would wait for ever.

    ``balance``, where it is given, are the steps for which prompts wait for those of other ranks, and the steps for
    which they wait when all ranks have one.
    """

    def __init__(
        self,
        settings: tensorrt.Settings,
        requests: list[tensorrt.Request],
        count: int,
        balance: tuple[int, int] | None = None,
    ) -> None:
        self.balance = balance
        self.uneven_steps = self.batching_steps = 0
        self.waits = 0  # decisions that put prompts off
        self.requests = requests
        self.later = sorted(requests, key=lambda one: one.arrival)
        self.ranks = [tensorrt.Oracle(replace(settings), []) for _ in range(count)]
        self.settings = settings
        self.queue: list[tensorrt.Request] = []
        self.held_back = 0  # decisions that came out empty for all, because one rank could run nothing
        self.stuck = False

    def run(self) -> None:
        now, end = 0, 0
        before: list[tensorrt.Planned | None] = []
        while True:
            while self.later and self.later[0].arrival <= now:
                self.queue.append(self.later.pop(0))
            steps = self.decide()
            last_end = end
            if any(steps):
                start = end if any(before) else now
                longest = 0
                for step in steps:
                    if step is not None:
                        tokens = len(step.decodes) + sum(count for _, count, _, _ in step.prompts)
                        past = step.context + sum(context for _, _, context, _ in step.prompts)
                        longest = max(longest, duration(self.settings, tokens, past))
                end = start + longest
                for step in steps:
                    if step is not None:
                        step.end = end
            if self.settings.overlap:
                ended, before = before, steps
            else:
                ended, before, last_end = steps, [], end
            if any(ended):
                now = last_end
                for rank, step in zip(self.ranks, ended, strict=True):
                    if step is not None:
                        rank.deliver(step)
            elif not any(steps):
                if self.queue or any(rank.active for rank in self.ranks):
                    self.stuck = True
                    return
                if not self.later:
                    return
                now = max(self.later[0].arrival, end)
            for step in before:
                if step is not None:
                    for request, _, _, _ in step.prompts:
                        request.coming = True
                    for request, _ in step.decodes:
                        request.coming = True

    def decide(self) -> list[tensorrt.Planned | None]:
        self.share_out()
        chosen = [rank.choose() for rank in self.ranks]
        if self.balance is not None and any(rank.active for rank in self.ranks):
            chosen = self.balanced(chosen, *self.balance)
        for rank, (decodes, prompts) in zip(self.ranks, chosen, strict=True):
            if rank.must_run() and not decodes and not prompts:
                self.held_back += 1
                return [None] * len(self.ranks)
        return [rank.take_step(*parts) for rank, parts in zip(self.ranks, chosen, strict=True)]

    def balanced(self, chosen: list[Any], timeout: int, batching: int) -> list[Any]:
        """Take the prompts away from all ranks where they have to wait; a rank without requests decodes a dummy."""
        decoding = [len(decodes) for decodes, _ in chosen]
        for place, rank in enumerate(self.ranks):
            if not rank.active:
                decoding[place] = 1
        all_prompt = all(prompts for _, prompts in chosen)
        all_seats = all(count < self.settings.seats for count in decoding)
        all_decode = all(decoding)
        put_off = False
        if all_prompt and all_seats:
            self.uneven_steps = 0
            if all_decode:
                put_off = self.batching_steps < batching
                self.batching_steps = self.batching_steps + 1 if put_off else 0
        else:
            self.uneven_steps += 1
            put_off = all_decode and self.uneven_steps < timeout
            if not put_off:
                self.uneven_steps = 0
        if not put_off:
            return chosen
        self.waits += any(prompts for _, prompts in chosen)
        return [(decodes, []) for decodes, _ in chosen]

    def share_out(self) -> None:
        seats = self.settings.seats
        active = [len(rank.active) for rank in self.ranks]
        new: list[tensorrt.Request] = []
        while self.queue and sum(active) + len(new) < seats * len(self.ranks):
            new.append(self.queue.pop(0))
        share = max([-(-(sum(active) + len(new)) // len(self.ranks)), *active])
        for request in sorted(new, key=lambda one: one.prompt, reverse=True):
            open_ranks = [rank for rank in self.ranks if len(rank.active) < share]
            least = min(
                open_ranks,
                key=lambda rank: (
                    sum(one.prompt for one in rank.active),
                    len(rank.active),
                    self.ranks.index(rank),
                ),
            )
            least.active.append(request)
