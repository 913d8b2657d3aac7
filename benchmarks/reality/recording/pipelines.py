"""Whole pipelines, in which every stage really computes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import side_stages
from alone import LEAST, tokens
from world import FLAGS, Core, Engine, Tasks, World, us

ON = {"enable_prefix_caching": True}


def arrivals(rng: random.Random, load: dict[str, Any]) -> Iterator[float]:
    at, count = rng.expovariate(load["rate"]), 0
    while at <= load["seconds"] or count < LEAST:
        yield at
        at, count = at + rng.expovariate(load["rate"]), count + 1


def llm_stage(of: int, stage: str, instance: int, engine: Engine, record: dict[str, Any]) -> tuple[Any, ...]:
    times = (us(record[key]) for key in ("ready", "start", "first", "end"))
    return (of, stage, instance, engine.core.name, *times, len(record["ids"]), record["n"], record["cached"])


def side_stage(
    of: int, stage: str, instance: int, tasks: Tasks, times: tuple[float, float, float], size: int
) -> tuple[Any, ...]:
    ready, start, end = (us(each) for each in times)
    return (of, stage, instance, tasks.core.name, ready, start, None, end, size, None, None)


def rag(world: World, models: Path, load: dict[str, Any], stages: list[tuple[Any, ...]]) -> None:
    """A question is embedded, documents are found, the LLM answers over both, a guard reads question and answer."""
    core = Core("A")
    other = core if load.get("shared") else Core("B")
    engine, host = world.add(Engine("llm", core, models / "toy", **FLAGS)), world.add(Tasks("side", other))
    embed, guard = side_stages.encoder(**side_stages.EMBED), side_stages.encoder(**side_stages.GUARD)
    index = side_stages.index()
    documents = np.random.default_rng(1).integers(3, 32_000, (4096, 96))
    for _ in range(3):
        side_stages.search(index, embed([7] * 64))
        guard([9] * 96)
    rng = random.Random(load["seed"])

    def request(number: int, at: float, ids: list[int], count: int) -> None:
        def embedded(ready: float, start: float, end: float, vector: Any) -> None:
            stages.append(side_stage(number, "embed", 0, host, (ready, start, end), len(ids)))
            host.submit(end, lambda: side_stages.search(index, vector), found)

        def found(ready: float, start: float, end: float, neighbors: Any) -> None:
            stages.append(side_stage(number, "search", 0, host, (ready, start, end), 10))
            prompt = documents[neighbors[:4] % 4096].reshape(-1).tolist() + ids
            engine.submit(end, prompt, count, answered)

        def answered(record: dict[str, Any], answer: list[int]) -> None:
            stages.append(llm_stage(number, "llm", 0, engine, record))
            text = ids + answer

            def checked(ready: float, start: float, end: float, _: Any) -> None:
                stages.append(side_stage(number, "guard", 0, host, (ready, start, end), len(text)))

            host.submit(record["end"], lambda: guard(text), checked)

        host.submit(at, lambda: embed(ids), embedded)

    for number, at in enumerate(arrivals(rng, load)):
        request(number, at, tokens(rng, 24, 88), rng.randint(16, 64))


def agent(world: World, models: Path, load: dict[str, Any], stages: list[tuple[Any, ...]]) -> None:
    """Two to five turns; each prompt holds what was said before and the result of a tool."""
    engine = world.add(Engine("llm", Core("A"), models / "toy", **{**FLAGS, **ON}))
    host, tool = world.add(Tasks("tool", Core("B"))), side_stages.Tool()
    tool(20)
    rng = random.Random(load["seed"])

    def ask(number: int, own: random.Random, ready: float, prompt: list[int], turn: int, turns: int) -> None:
        def answered(record: dict[str, Any], answer: list[int]) -> None:
            stages.append(llm_stage(number, "llm", turn, engine, record))
            if turn + 1 == turns:
                return
            rounds = own.randint(9, 36)

            def ran(ready: float, start: float, end: float, _: Any) -> None:
                stages.append(side_stage(number, "tool", turn, host, (ready, start, end), rounds))
                ask(number, own, end, prompt + answer + tokens(own, 32, 160), turn + 1, turns)

            host.submit(record["end"], lambda: tool(rounds), ran)

        engine.submit(ready, prompt, own.randint(16, 48), answered)

    for number, at in enumerate(arrivals(rng, load)):
        own = random.Random(load["seed"] * 100_000 + number)
        ask(number, own, at, tokens(own, 128, 512), 0, own.randint(2, 5))


def cascade(world: World, models: Path, load: dict[str, Any], stages: list[tuple[Any, ...]]) -> None:
    """A small model answers, and a large one answers a drawn part again."""
    small = world.add(Engine("small", Core("A"), models / "toy_small", **FLAGS))
    large = world.add(Engine("large", Core("B"), models / "toy", **FLAGS))
    rng = random.Random(load["seed"])

    def request(number: int, at: float, ids: list[int], first: int, escalates: bool, second: int) -> None:
        def answered(record: dict[str, Any], _: Any) -> None:
            stages.append(llm_stage(number, "small", 0, small, record))
            if escalates:
                large.submit(record["end"], ids, second, corrected)

        def corrected(record: dict[str, Any], _: Any) -> None:
            stages.append(llm_stage(number, "large", 0, large, record))

        small.submit(at, ids, first, answered)

    for number, at in enumerate(arrivals(rng, load)):
        ids, first = tokens(rng, 64, 448), rng.randint(16, 96)
        request(number, at, ids, first, rng.random() < 0.3, rng.randint(16, 96))


def branches(world: World, models: Path, load: dict[str, Any], stages: list[tuple[Any, ...]]) -> None:
    """Four answers to one prompt, and a short one to all of them."""
    engine = world.add(Engine("llm", Core("A"), models / "toy", **{**FLAGS, **ON}))
    rng = random.Random(load["seed"])

    def request(number: int, at: float, ids: list[int], lengths: list[int], final: int) -> None:
        answers: dict[int, list[int]] = {}

        def written(record: dict[str, Any], answer: list[int], branch: int) -> None:
            stages.append(llm_stage(number, "branch", branch, engine, record))
            answers[branch] = answer
            if len(answers) == len(lengths):
                prompt = ids + [token for _, own in sorted(answers.items()) for token in own]
                engine.submit(record["end"], prompt, final, done)

        def done(record: dict[str, Any], _: Any) -> None:
            stages.append(llm_stage(number, "final", 0, engine, record))

        for branch, count in enumerate(lengths):
            engine.submit(at, ids, count, lambda record, answer, b=branch: written(record, answer, b), 1.0)

    for number, at in enumerate(arrivals(rng, load)):
        ids = tokens(rng, 256, 768)
        request(number, at, ids, [rng.randint(24, 64) for _ in range(4)], rng.randint(12, 32))


PIPELINES = {"rag": rag, "agent": agent, "cascade": cascade, "branches": branches}
