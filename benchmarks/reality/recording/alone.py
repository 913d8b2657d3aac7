"""Loads of an LLM alone: open arrivals, a closed loop, and sessions whose prompts hold what was said before."""

from __future__ import annotations

import random
from typing import Any

from world import Engine

LEAST = 4  # requests of a run, however short it is
Row = tuple[dict[str, Any], int | None, int | None, int | None, int]


def tokens(rng: random.Random, low: int, high: int) -> list[int]:
    return [rng.randrange(3, 32_000) for _ in range(rng.randint(low, high))]


def open_loop(engine: Engine, load: dict[str, Any], rows: list[Row]) -> None:
    """Poisson arrivals; prompts may begin with one of a few families of 512 tokens."""
    rng = random.Random(load["seed"])
    heads = [tokens(rng, 512, 512) for _ in range(load.get("families", 0))]
    at = 0.0
    while (at := at + rng.expovariate(load["rate"])) <= load["seconds"] or len(engine.coming) < LEAST:
        family = rng.randrange(len(heads)) if heads else None
        ids = ([] if family is None else heads[family]) + tokens(rng, *load["prompt"])
        shared = 0 if family is None else 512

        def then(record: dict[str, Any], _: Any, of: tuple[int | None, int] = (family, shared)) -> None:
            rows.append((record, None, None, *of))

        engine.submit(at, ids, rng.randint(*load["output"]), then)


def closed_loop(engine: Engine, load: dict[str, Any], rows: list[Row]) -> None:
    """So many users without think time."""
    rng = random.Random(load["seed"])
    left = [max(LEAST, round(load["requests"] * load["seconds"] / load["for_seconds"]))]

    def ask(ready: float, user: int, turn: int) -> None:
        if not left[0]:
            return
        left[0] -= 1

        def then(record: dict[str, Any], _: Any) -> None:
            rows.append((record, user, turn, None, 0))
            ask(record["end"], user, turn + 1)

        engine.submit(ready, tokens(rng, *load["prompt"]), rng.randint(*load["output"]), then)

    for user in range(load["users"]):
        ask(0.0, user, 0)


def sessions(engine: Engine, load: dict[str, Any], rows: list[Row]) -> None:
    """Conversations of several turns with exponential think times."""
    rng = random.Random(load["seed"])

    def ask(number: int, own: random.Random, ready: float, before: list[int], turn: int, turns: int) -> None:
        ids = before + tokens(own, *(load["more"] if turn else load["prompt"]))

        def then(record: dict[str, Any], answer: list[int]) -> None:
            rows.append((record, number, turn, None, len(before)))
            if turn + 1 < turns:
                think = own.expovariate(1 / load["think_s"])
                ask(number, own, record["end"] + think, ids + answer, turn + 1, turns)

        engine.submit(ready, ids, own.randint(*load["output"]), then)

    at, number = 0.0, 0
    while (at := at + rng.expovariate(load["rate"])) <= load["seconds"] or number < LEAST:
        own = random.Random(load["seed"] * 100_000 + number)  # apart from the order of events
        ask(number, own, at, [], 0, own.randint(*load["turns"]))
        number += 1
