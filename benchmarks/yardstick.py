"""Measures a plain Python loop as the unit for costs per request: ``python -m benchmarks.yardstick [OVERRIDE…]``.

The loop serves a list of requests on 8 clients with O(1) work per step and nothing else: no blocks, no routing by
load, no records. With overrides, it also prints the cost per request of ``simulate()`` in µs and as a multiple of the
loop, both from CPU seconds of this process, in turns.
"""

from __future__ import annotations

import sys
import time
from heapq import heappop, heappush
from statistics import median

import numpy as np

REQUESTS, CLIENTS, RATE_PER_S = 100_000, 8, 80.0
RUNS = 3
# Picoseconds of a step, in round numbers for 8B parameters on one H100: in any case, for each decoding
# sequence, for each token of context, and for each token of a prompt.
STEP_PS, SEQUENCE_PS, CONTEXT_PS, TOKEN_PS = 5_000_000_000, 40_000_000, 8_000, 20_000_000
NEVER = 1 << 62


def main() -> None:
    """Print the cost of the loop, and of the run that the arguments describe."""
    overrides = sys.argv[1:]
    if not overrides:
        print(f"{median([loop_us() for _ in range(RUNS)]):.2f} us a request")
        return
    import hermes_flow as hf

    program = hf.compile(hf.compose(overrides))
    hf.simulate(program)  # what is imported at first use is not counted
    loops, runs = [], []
    for _ in range(RUNS):
        loops.append(loop_us())
        started = time.process_time()
        hf.simulate(program)
        runs.append((time.process_time() - started) / len(program.requests) * 1e6)
    unit, cost = median(loops), median(runs)
    print(f"{cost:.1f} us a request, {cost / unit:.1f} times the plain loop ({unit:.2f} us)")


def loop_us() -> float:
    """Return the CPU time of the loop per request in µs."""
    rng = np.random.default_rng(0)
    arrive = np.cumsum(rng.exponential(1 / RATE_PER_S, REQUESTS) * 1e12).astype(np.int64)
    prompt = np.maximum(rng.normal(375, 60, REQUESTS), 1).astype(np.int64)
    output = np.maximum(rng.normal(200, 25, REQUESTS), 2).astype(np.int64)
    parts = [
        [column[client::CLIENTS].tolist() for column in (arrive, prompt, output)] for client in range(CLIENTS)
    ]
    started = time.process_time()
    for part in parts:
        serve(*part)
    return (time.process_time() - started) / REQUESTS * 1e6


def serve(arrive: list[int], prompt: list[int], output: list[int]) -> tuple[list[int], list[int]]:
    """Serve requests on one client; return when each first and each last token came, in picoseconds."""
    count = len(prompt)
    first, last = [0] * count, [0] * count
    arrive = [*arrive, NEVER]
    now = iteration = context = decodes = place = 0
    ends: list[tuple[int, int]] = []  # (last iteration, request)
    while place < count or ends:
        at = arrive[place]
        if at <= now or not ends:
            now, tokens, joined = max(now, at), 0, []
            while arrive[place] <= now:
                tokens += prompt[place]
                joined.append(place)
                place += 1
            now += STEP_PS + SEQUENCE_PS * decodes + CONTEXT_PS * context + TOKEN_PS * tokens
            if decodes:
                iteration += 1
                context += decodes
            for request in joined:
                first[request] = now
                heappush(ends, (iteration + output[request] - 1, request))
                decodes += 1
                context += prompt[request] + 1
        else:
            steps = ends[0][0] - iteration
            pace = STEP_PS + SEQUENCE_PS * decodes + CONTEXT_PS * context
            if now + steps * pace > at:
                steps = min(steps, max(1, (at - now) // pace + 1))
            now += steps * pace + CONTEXT_PS * decodes * (steps * (steps - 1) // 2)
            iteration += steps
            context += decodes * steps
        while ends and ends[0][0] <= iteration:
            request = heappop(ends)[1]
            last[request] = now
            decodes -= 1
            context -= prompt[request] + output[request]
    return first, last


if __name__ == "__main__":
    main()
