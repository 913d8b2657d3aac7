"""The yardstick of speed: what a plain Python loop needs that does the least a simulator of one LLM pool must do.

Requests go to clients in turn. A client's step takes an affine time in its sequences, and a step with new
prompts takes more by their tokens. Steps without a change are done in one go, and a heap of finish counts says when
the next sequence ends, so that a request costs two or three rounds of a loop. Memory, limits, tables and every
choice are left out.
"""

from __future__ import annotations

import time
from heapq import heappop, heappush

import numpy as np

STEP_NS, SEQUENCE_NS, TOKEN_NS = 6_000_000, 20_000, 20_000


def yardstick_us(requests: int = 100_000, clients: int = 8, rate_per_s: float = 80.0) -> float:
    """Return the CPU microseconds a request of the loop, the least of three runs."""
    draw = np.random.default_rng(0)
    arrivals = (np.cumsum(draw.exponential(1e9 / rate_per_s, requests))).astype(np.int64)
    tokens = np.maximum(1, draw.normal(200, 25, requests)).astype(np.int64)
    prompts = np.maximum(1, draw.normal(375, 60, requests)).astype(np.int64)
    taken = []
    for _ in range(3):
        started = time.process_time()
        for client in range(clients):
            own = slice(client, None, clients)
            _client(arrivals[own].tolist(), prompts[own].tolist(), tokens[own].tolist())
        taken.append(time.process_time() - started)
    return min(taken) / requests * 1e6


def _client(arrivals: list[int], prompts: list[int], tokens: list[int]) -> tuple[list[int], list[int]]:
    """Return when each request has its first token, and when it is finished."""
    first, finished = [0] * len(arrivals), [0] * len(arrivals)
    ends: list[tuple[int, int]] = []  # (count of steps, request)
    now, steps, place, count = 0, 0, 0, len(arrivals)
    while place < count or ends:
        if not ends and now < arrivals[place]:
            now = arrivals[place]
        began, prompt = place, 0
        while place < count and arrivals[place] <= now:
            heappush(ends, (steps + tokens[place], place))
            prompt += prompts[place]
            place += 1
        step = STEP_NS + SEQUENCE_NS * len(ends)
        due = 1
        if prompt:
            step += TOKEN_NS * prompt
        else:
            due = ends[0][0] - steps
            if place < count:
                due = min(due, max(1, -(-(arrivals[place] - now) // step)))
        steps += due
        now += due * step
        for request in range(began, place):
            first[request] = now
        while ends and ends[0][0] <= steps:
            finished[heappop(ends)[1]] = now
    return first, finished


if __name__ == "__main__":
    print(f"{yardstick_us():.2f} µs a request")
