from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from hermes_flow.config.convert import convert
from hermes_flow.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Engine:
    step_us: float
    graphs: bool = True


@dataclass(frozen=True, slots=True)
class Gpu:
    kind: Literal["gpu"]
    memory_gb: float
    engine: Engine | None = None


@dataclass(frozen=True, slots=True)
class Host:
    kind: Literal["host"]
    cores: int


@dataclass(frozen=True, slots=True)
class Site:
    name: str
    clients: dict[str, Gpu | Host] = field(default_factory=dict)
    serves: tuple[str, ...] = ()
    limits: dict[int, float] = field(default_factory=dict)
    lookahead: Literal[0, 1] = 1
    policy: Literal["fcfs", "priority"] = "fcfs"
    length: dict[str, Any] | int = 1
    seed: int | None = None


def site(**values: Any) -> Site:
    return convert(Site, {"name": "rack", **values}, "site")


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        site(**values)
    assert str(caught.value) == f"{caught.value.key}: {caught.value.problem}"
    return str(caught.value)


def test_every_kind_of_value_arrives_as_its_type() -> None:
    found = site(
        clients={"a": {"kind": "gpu", "memory_gb": 80, "engine": {"step_us": 5, "graphs": False}}},
        serves=["prefill", "decode"],
        limits={2: 1, 4: 0.5},
        lookahead=0,
        policy="priority",
        length={"distribution": "fixed"},
    )
    assert found == Site(
        name="rack",
        clients={"a": Gpu("gpu", 80.0, Engine(5.0, graphs=False))},
        serves=("prefill", "decode"),
        limits={2: 1.0, 4: 0.5},
        lookahead=0,
        policy="priority",
        length={"distribution": "fixed"},
    )
    assert isinstance(found.clients["a"].memory_gb, float)  # type: ignore[union-attr]


def test_what_is_left_out_takes_its_default() -> None:
    assert site() == Site(name="rack")


def test_a_whole_number_written_as_a_float_is_an_integer() -> None:
    assert site(seed=2e3).seed == 2000
    assert type(site(seed=2e3).seed) is int


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nam": 1}, "site.nam: unknown key; did you mean 'name'?"),
        (
            {"x": 1},
            "site.x: unknown key; expected one of: clients, length, limits, lookahead, name, policy, seed, serves",
        ),
        (
            {"clients": {"a": {"kind": "gpu", "memory_gb": 1, "engine": {"step_us": 1, "steps_us": 2}}}},
            "site.clients.a.engine.steps_us: unknown key; did you mean 'step_us'?",
        ),
        (
            {"clients": {"a": {"kind": "host", "cores": 2, "memory_gb": 80}}},
            "site.clients.a.memory_gb: unknown key; expected one of: cores, kind",
        ),
    ],
)
def test_an_unknown_key_is_refused_at_any_depth(values: dict[str, Any], message: str) -> None:
    assert refusal(**values) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": 5}, "site.name: 5 is not text"),
        ({"seed": "many"}, "site.seed: 'many' is not an integer"),
        ({"seed": 1.5}, "site.seed: 1.5 is not an integer"),
        ({"seed": True}, "site.seed: true is not an integer"),
        ({"seed": float("inf")}, "site.seed: inf is not an integer"),
        ({"serves": "decode"}, "site.serves: 'decode' is not a list; expected one, as in [decode]"),
        ({"serves": [1]}, "site.serves.0: 1 is not text"),
        ({"limits": {"two": 1.0}}, "site.limits.two: 'two' is not an integer"),
        ({"limits": {2: "half"}}, "site.limits.2: 'half' is not a number"),
        ({"limits": {2: float("nan")}}, "site.limits.2: nan is not a number"),
        ({"limits": {2: True}}, "site.limits.2: true is not a number"),
        ({"limits": 3}, "site.limits: 3 is not a mapping; expected entries under names, as in {a: …}"),
        ({"length": "long"}, "site.length: 'long' is not a mapping or an integer"),
        (
            {"clients": {"a": "gpu"}},
            "site.clients.a: 'gpu' is not a mapping; expected one whose kind is one of: gpu, host",
        ),
        (
            {"clients": {"a": {"kind": "gpu", "memory_gb": 1, "engine": {"step_us": 1, "graphs": "yes"}}}},
            "site.clients.a.engine.graphs: 'yes' is not true or false",
        ),
        (
            {"clients": {"a": {"kind": "gpu", "memory_gb": 1, "engine": 3}}},
            "site.clients.a.engine: 3 is not a mapping; expected the keys step_us, graphs",
        ),
        ({"serves": "d" * 99}, f"site.serves: '{'d' * 56}… is not a list"),
    ],
)
def test_a_wrong_type_is_refused_with_key_value_and_what_was_expected(
    values: dict[str, Any], message: str
) -> None:
    assert refusal(**values) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"policy": "prioritty"}, "site.policy: 'prioritty' is not valid; did you mean 'priority'?"),
        ({"policy": "x"}, "site.policy: 'x' is not valid; expected one of: fcfs, priority"),
        ({"policy": 3}, "site.policy: 3 is not valid; expected one of: fcfs, priority"),
        ({"lookahead": 2}, "site.lookahead: 2 is not valid; expected one of: 0, 1"),
        ({"lookahead": True}, "site.lookahead: true is not valid; expected one of: 0, 1"),
        ({"clients": {"a": {"kind": "gppu"}}}, "site.clients.a.kind: 'gppu' is unknown; did you mean 'gpu'?"),
        ({"clients": {"a": {"kind": []}}}, "site.clients.a.kind: [] is unknown; expected one of: gpu, host"),
        ({"clients": {"a": {"cores": 2}}}, "site.clients.a.kind: missing; expected one of: gpu, host"),
    ],
)
def test_a_value_outside_its_choices_is_refused_with_the_nearest(
    values: dict[str, Any], message: str
) -> None:
    assert refusal(**values) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": None}, "site.name: null is not allowed; expected text"),
        ({"limits": {2: None}}, "site.limits.2: null is not allowed; expected a number"),
        ({"lookahead": None}, "site.lookahead: null is not valid; expected one of: 0, 1"),
        (
            {"clients": {"a": None}},
            "site.clients.a: null is not a mapping; expected one whose kind is one of: gpu, host",
        ),
        ({"length": None}, "site.length: null is not a mapping or an integer"),
    ],
)
def test_null_is_refused_where_nothing_is_not_an_answer(values: dict[str, Any], message: str) -> None:
    assert refusal(**values) == message


def test_null_is_taken_where_it_is_allowed() -> None:
    assert site(seed=None).seed is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clients": {"a": {"kind": "host"}}}, "site.clients.a.cores: missing; expected an integer"),
        ({"seed": "???"}, "site.seed: missing; set it to an integer or null, as in site.seed=…"),
        (
            {"clients": {"a": {"kind": "host", "cores": "???"}}},
            "site.clients.a.cores: missing; set it to an integer, as in site.clients.a.cores=…",
        ),
    ],
)
def test_what_is_missing_is_named(values: dict[str, Any], message: str) -> None:
    assert refusal(**values) == message


def test_the_key_that_was_written_first_is_named_first() -> None:
    assert refusal(seed="a", policy="b").startswith("site.seed")
    assert refusal(policy="b", seed="a").startswith("site.policy")


def test_a_key_at_the_root_is_named_without_a_leading_dot() -> None:
    with pytest.raises(ConfigError) as caught:
        convert(Site, {"name": None}, "")
    assert caught.value.key == "name"
