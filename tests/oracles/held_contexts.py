"""A naive client whose prompts get their blocks before their contexts are read, one step at a time.

It plans a step when the one before it has ended. Memory for every running sequence is assumed: where blocks of a
sequence that runs are lacking, ``short`` says so and the run ends, because preemption is not followed here.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(eq=False)
class Request:
    """``ready`` is when its context can be looked up, which takes ``reading``; all times in ns."""

    ready: int
    prompt: int
    output: int
    context: int
    reading: int
    granted: int = -1
    there: int = -1  # when its context is there
    computed: int = 0
    written: int = 0
    blocks: int = 0
    first: int = -1
    finish: int = -1


@dataclass
class Settings:
    blocks: int
    size: int
    seats: int
    budget: int
    fixed: int
    each: int
    past: int


class Client:
    """One client, first come first served."""

    def __init__(self, settings: Settings, requests: list[Request]) -> None:
        self.settings = settings
        self.later = sorted(requests, key=lambda one: one.ready)
        self.asking: list[Request] = []  # in order; the first has its turn
        self.reading: list[Request] = []
        self.back: list[Request] = []  # with blocks and context, in the order in which they came
        self.running: list[Request] = []
        self.short = False
        self.most_held = 0  # blocks of prompts that read or wait

    def free(self) -> int:
        held = sum(one.blocks for one in (*self.reading, *self.back, *self.running))
        return self.settings.blocks - held

    def need(self, tokens: int) -> int:
        return -(-tokens // self.settings.size)

    def run(self) -> None:
        now = 0
        while not self.short:
            while self.later and self.later[0].ready <= now:
                self.asking.append(self.later.pop(0))
            for one in sorted(self.reading, key=lambda one: one.there):
                if one.there <= now:
                    self.reading.remove(one)
                    self.back.append(one)
            end = self.step(now)
            if end is not None:
                now = end
                continue
            coming = [one.there for one in self.reading] + [one.ready for one in self.later[:1]]
            if not coming:
                return
            now = min(coming)

    def step(self, now: int) -> int | None:
        settings = self.settings
        parts: list[tuple[Request, int]] = []
        left = settings.budget
        for one in self.running:
            tokens = 1 if one.written else min(one.prompt - one.computed, left)
            if not tokens:
                continue
            more = self.need(one.computed + tokens) - one.blocks
            if more > self.free():
                self.short = True
                return None
            one.blocks += more
            left -= tokens
            parts.append((one, tokens))
        while len(self.running) < settings.seats:
            if self.back:
                if left <= 0:
                    break
                one = self.back.pop(0)
                one.computed = one.context
                tokens = min(one.prompt - one.computed, left)
                one.blocks = self.need(one.computed + tokens)  # gives back what is behind its first chunk
                left -= tokens
                self.running.append(one)
                parts.append((one, tokens))
            elif self.asking and self.need(self.asking[0].prompt) <= self.free():
                one = self.asking.pop(0)
                one.blocks = self.need(one.prompt)
                one.granted, one.there = now, now + one.reading
                self.reading.append(one)
            else:
                break
        self.most_held = max(self.most_held, sum(one.blocks for one in (*self.reading, *self.back)))
        if not parts:
            return None
        tokens = sum(count for _, count in parts)
        past = sum(one.computed for one, _ in parts)
        end = now + settings.fixed + settings.each * tokens + settings.past * past
        for one, count in parts:
            one.computed += count
            if one.computed < one.prompt:
                continue
            one.written += 1
            if one.written == 1:
                one.first = end
            if one.written == one.output:
                one.finish = end
                self.running.remove(one)
        return end
