"""Cores that are played by CPU time, with engines and tasks on them; one OS thread computes everything for real.

A piece of work (a step of vLLM, or a task of a side stage) takes the CPU time that the thread took for it. Of all
cores, the piece that starts earliest goes next, so that nothing is used before it exists. Idle time is skipped. Tasks
that are ready go before the next step of an engine on the same core. Between pieces, outside the clock, a fixed
piece of work is timed every second of the clock: the speed of the machine.
"""

from __future__ import annotations

import gc
import heapq
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

now = time.thread_time
NEVER = float("inf")
FLAGS = {
    "max_model_len": 2048,
    "block_size": 32,
    "kv_cache_memory_bytes": 1 << 28,
    "enforce_eager": True,
    "enable_prefix_caching": False,
}


def us(seconds: float) -> int:
    return round(seconds * 1e6)


class Core:
    """A core; ``clock`` is when its last piece of work was over."""

    def __init__(self, name: str) -> None:
        self.name, self.clock, self.busy = name, 0.0, 0.0


class Engine:
    """A vLLM engine on a core. ``then(record, tokens)`` is called as a request of ``submit`` finishes."""

    def __init__(self, name: str, core: Core, model: Path, **flags: Any) -> None:
        from vllm import LLM

        self.name, self.core, self.flags, self.model = name, core, flags, model.name
        self.llm = LLM(
            model=str(model),
            load_format="dummy",
            seed=1,
            skip_tokenizer_init=True,
            disable_log_stats=True,
            scheduler_cls="step_log.StepLog",
            **flags,
        ).llm_engine
        torch.set_num_threads(1)
        self.scheduler = self.llm.engine_core.engine_core.scheduler
        self.coming: list[tuple[float, int, dict[str, Any]]] = []
        self.open: dict[str, dict[str, Any]] = {}
        self.steps: list[tuple[Any, ...]] = []
        self.count = 0
        for size in (8, 64, 300, 700, 20):  # a warm-up, whose contents it forgets
            for k in range(4):
                prompt = {"prompt_token_ids": [5 + size] * size}
                self.llm.add_request(f"w{size}.{k}", prompt, self.sampling(6))
        while self.llm.has_unfinished_requests():
            self.llm.step()
        self.llm.reset_prefix_cache()

    def sampling(self, tokens: int, temperature: float = 0.0) -> Any:
        from vllm import SamplingParams

        return SamplingParams(max_tokens=tokens, ignore_eos=True, detokenize=False, temperature=temperature)

    def submit(
        self,
        ready: float,
        ids: list[int],
        tokens: int,
        then: Callable[[dict[str, Any], list[int]], None],
        temperature: float = 0.0,
    ) -> None:
        self.count += 1
        record = {"ready": ready, "ids": ids, "n": tokens, "then": then}
        record["params"] = self.sampling(tokens, temperature)
        heapq.heappush(self.coming, (ready, self.count, record))

    def start(self) -> float:
        if self.open:
            return self.core.clock
        return max(self.core.clock, self.coming[0][0]) if self.coming else NEVER

    def work(self, start: float) -> None:
        """Take in what has arrived, and make a step."""
        began = now()
        while self.coming and self.coming[0][0] <= start:
            _, number, record = heapq.heappop(self.coming)
            self.open[str(number)] = record
            self.llm.add_request(str(number), {"prompt_token_ids": record["ids"]}, record["params"])
        added = now()
        outputs = self.llm.step()
        ended = now()
        begin, end = start + (added - began), start + (ended - began)
        self.core.clock = end
        self.core.busy += ended - began
        self.steps.append((us(begin), us(ended - added), us(added - began), *self.scheduler.last))
        for name in self.scheduler.started:
            self.open[name.split("-")[0]].setdefault("start", begin)
        for output in outputs:
            name = output.request_id.split("-")[0]
            record = self.open[name]
            if "first" not in record:
                record["first"], record["cached"] = end, output.num_cached_tokens or 0
            if output.finished:
                del self.open[name]
                record["end"] = end
                record["then"](record, list(output.outputs[0].token_ids))

    def close(self) -> None:
        self.llm.engine_core.shutdown()


class Tasks:
    """Side stages on a core, one task at a time, in order of readiness."""

    def __init__(self, name: str, core: Core) -> None:
        self.name, self.core, self.count = name, core, 0
        self.waiting: list[tuple[float, int, Callable[[], Any], Callable[..., None]]] = []

    def submit(self, ready: float, work: Callable[[], Any], then: Callable[..., None]) -> None:
        self.count += 1
        heapq.heappush(self.waiting, (ready, self.count, work, then))

    def start(self) -> float:
        return max(self.core.clock, self.waiting[0][0]) if self.waiting else NEVER

    def work(self, start: float) -> None:
        ready, _, work, then = heapq.heappop(self.waiting)
        began = now()
        result = work()
        took = now() - began
        self.core.clock = start + took
        self.core.busy += took
        then(ready, start, start + took, result)


class Probe:
    """Fixed pieces of work: reading 64 MB, and a product of two matrices of 512 × 512 in 32 bit."""

    def __init__(self) -> None:
        self.much, self.square = torch.ones(16 << 20), torch.randn(512, 512)
        self.rows: list[tuple[int, int, int]] = []
        self.next = 0.0
        for _ in range(3):
            self(0.0)
        self.rows.clear()
        self.next = 0.0

    def __call__(self, clock: float) -> None:
        began = now()
        self.much.sum()
        read = now()
        self.square @ self.square
        self.rows.append((us(clock), us(read - began), us(now() - read)))
        self.next = clock + 1.0


class World:
    """All players of a run, until nothing is left to do."""

    def __init__(self) -> None:
        self.players: list[Any] = []
        self.probes: list[tuple[int, int, int]] = []

    def add(self, player: Any) -> Any:
        self.players.append(player)
        return player

    def run(self) -> None:
        gc.collect()
        gc.freeze()
        probe = Probe()
        ordered = sorted(self.players, key=lambda player: isinstance(player, Engine))  # tasks first
        while True:
            start, player = min(((each.start(), each) for each in ordered), key=lambda pair: pair[0])
            if start == NEVER:
                break
            if start >= probe.next:
                probe(start)
            player.work(start)
        gc.unfreeze()
        self.probes = probe.rows
