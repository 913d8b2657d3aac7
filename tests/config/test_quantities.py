"""Every number of a configuration has a range, and a value outside it is refused before anything is computed."""

from __future__ import annotations

import typing
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pytest

import hermes_flow as hf
from benchmarks.configuration_page import _registries
from hermes_flow.config.convert import convert_value, field_types
from hermes_flow.config.pools import PoolKinds
from hermes_flow.config.quantities import PositiveMilliseconds, PositiveShare, Range, RangeError
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.stages.stage_options import StageOptions


def schema_classes() -> set[type[Any]]:
    found: set[type[Any]] = set()
    waiting: list[Any] = [Config, StageOptions]
    for registry in _registries():
        classes = [registry.find(name, registry.tag) for name in registry.names]
        waiting += [cls.schema if isinstance(registry, PoolKinds) else cls for cls in classes]
    while waiting:
        cls = waiting.pop()
        if not isinstance(cls, type) or not is_dataclass(cls) or cls in found:
            continue
        found.add(cls)
        waiting += [part for kind in field_types(cls).values() for part in parts(kind)]
    return found


def parts(kind: Any) -> list[Any]:
    inner = typing.get_args(kind)
    return [kind] if not inner else [part for member in inner for part in parts(member)]


def bare_numbers(kind: Any) -> bool:
    """Tell whether a type has an int or a float without a range."""
    if typing.get_origin(kind) is typing.Literal or kind is Any:
        return False
    if typing.get_origin(kind) is Annotated and isinstance(typing.get_args(kind)[1], Range):
        return False
    return kind in (int, float) or any(bare_numbers(member) for member in typing.get_args(kind))


def test_every_number_of_every_key_has_a_range() -> None:
    bare = [
        f"{cls.__module__}.{cls.__name__}.{field.name}"
        for cls in schema_classes()
        if cls.__module__.startswith("hermes_flow.")
        for field in fields(cls)
        if field.init and bare_numbers(field_types(cls)[field.name])
    ]
    assert not bare, "declare these with a quantity of hermes_flow/config/quantities.py"
    assert len(schema_classes()) > 60


@pytest.mark.parametrize(
    ("limits", "inside", "outside", "text"),
    [
        (Range(1, 100_000), [1, 7, 100_000], [0, 100_001, -1, float("inf")], "from 1 to 100,000"),
        (Range(0, 1), [0, 0.5, 1], [-1e-9, 1.0000001, float("nan")], "from 0 to 1"),
        (Range(0, 1, below=True), [0, 0.999], [1, 1.5], "from 0 to below 1"),
        (Range(0, 1e6, above=True), [1e-300, 1e6], [0, 1e7], "above 0 and at most 1,000,000"),
        (Range(1e-6, 1e9), [1e-6, 1e9], [0, 1e10], "from 1e-6 to 1e9"),
        (Range(1, 2**31), [2**31], [2**31 + 1, 10**400], "from 1 to 2,147,483,648"),
    ],
)
def test_a_range_holds_its_numbers_and_says_so(
    limits: Range, inside: list[float], outside: list[float], text: str
) -> None:
    assert all(limits.holds(value) for value in inside)
    assert not any(limits.holds(value) for value in outside)
    assert limits.text == text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hardware.engine.ingest_ms=1e300"], "hardware.engine.ingest_ms: 1e+300 is out of range"),
        (["network.node.efficiency=1e-300"], "network.node.efficiency: 1e-300 is out of range"),
        (["network.node.efficiency=5"], "5 is out of range; expected a number from 1e-6 to 1"),
        (["pipeline=rag", "cluster.pools.embed.wait_ms=1e300"], "cluster.pools.embed.wait_ms: 1e+300"),
        (["model.parameters_b=1e300"], "model.parameters_b: 1e+300 is out of range"),
        (["slo.ttft_ms.p99=inf"], "slo.ttft_ms.p99: inf is out of range"),
        (["workload.requests=1e12"], "expected an integer from 1 to 2,147,483,648"),
        (["cluster.pools.llm.count=1e9"], "expected an integer from 1 to 100,000"),
        (["cluster.pools.host.cores=1e9"], "cluster.pools.host.cores: 1e+09 is out of range"),
        (["+pipeline.stages.decode.branches=1e9"], "expected an integer from 1 to 4,096"),
        (["cluster.pools.llm.max_num_seqs=1e12"], "expected an integer from 1 to 1,000,000"),
        (["pipeline=rag", "cluster.pools.embed.max_batch=1e12"], "expected an integer from 1 to 1,000,000"),
        (["hardware.reserved_gb=1e300"], "hardware.reserved_gb: 1e+300 is out of range"),
        (["pipeline=rag", "pipeline.stages.rerank.documents=1e18"], "documents: 1e+18 is out of range"),
        (["workload.input_tokens=1" + "0" * 400], "workload.input_tokens: a number of 401 digits is out"),
        (["+pipeline.stages.tokenize.fixed_us=1e16"], "pipeline.stages.tokenize.fixed_us: 1e+16"),
        (["seed=-1"], "seed: -1 is out of range"),
    ],
)
def test_figures_that_no_system_has_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises((ConfigError, CompileError)) as error:
        hf.compile(hf.compose(overrides))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("90%", "'90%' is not a number; expected one from 1e-6 to 1; 90 % is 0.9"),
        (" 2.5 % ", "' 2.5 % ' is not a number; expected one from 1e-6 to 1; 2.5 % is 0.025"),
        (90, "90 is out of range; expected a number from 1e-6 to 1; 90 % is 0.9"),
        ("200%", "'200%' is not a number; expected one from 1e-6 to 1"),
        (200, "200 is out of range; expected a number from 1e-6 to 1"),
        (1.5, "1.5 is out of range; expected a number from 1e-6 to 1"),
    ],
)
def test_a_share_in_percent_is_refused_with_the_number_that_it_stands_for(given: object, said: str) -> None:
    for kind in (PositiveShare, PositiveShare | None, PositiveShare | dict[str, str]):
        with pytest.raises(RangeError) as caught:
            convert_value(kind, given, "cluster.pools.llm.memory_utilization")
        assert str(caught.value) == f"cluster.pools.llm.memory_utilization: {said}"


def test_a_percent_sign_is_no_hint_where_no_share_is_expected() -> None:
    with pytest.raises(ConfigError) as caught:
        convert_value(PositiveMilliseconds, "90%", "slo.ttft_ms")
    assert str(caught.value) == "slo.ttft_ms: '90%' is not a number"


def test_shares_in_percent_are_named_together_with_other_mistakes_of_numbers() -> None:
    words = ["cluster.pools.llm.memory_utilization=90%", "workload.prefix_share=50%", "workload.requests=0"]
    with pytest.raises(ConfigError) as caught:
        hf.compose(["pipeline=llm", *words])
    for said in ("90 % is 0.9", "50 % is 0.5", "workload.requests: 0 is out of range"):
        assert said in str(caught.value)


def test_a_configuration_made_in_python_is_held_to_the_same_ranges() -> None:
    config = hf.compose(["workload.requests=3"])
    pool = config.cluster.pools["llm"]
    wrong = replace(pool, count=0, hardware=replace(pool.hardware, bandwidth_gb_s=-5.0, power_w=float("inf")))  # type: ignore[type-var]
    with pytest.raises(CompileError) as error:
        hf.compile(
            replace(config, cluster=replace(config.cluster, pools={**config.cluster.pools, "llm": wrong}))
        )
    assert error.value.problems == (
        "cluster.pools.llm.hardware.bandwidth_gb_s: -5 is out of range; expected a number from 1e-6 to 1e8",
        "cluster.pools.llm.hardware.power_w: inf is out of range; expected a number from 0.001 to 1e7",
        "cluster.pools.llm.count: 0 is out of range; expected an integer from 1 to 100,000",
    )


def test_a_number_without_a_range_of_its_own_is_finite() -> None:
    for value in (float("inf"), -float("inf"), 10**400, float("nan")):
        with pytest.raises(ConfigError):
            convert_value(float, value, "age")


def test_one_error_names_every_number_out_of_range_and_copies_once() -> None:
    wrong = [
        "workload.requests=0",
        "cluster.pools.llm.max_num_seqs=-4",
        "hardware.bandwidth_gb_s=-3",
        "seed=-1",
    ]
    with pytest.raises(ConfigError) as caught:
        hf.compose(wrong)
    named = [line.strip(" -").split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert sorted(named) == sorted(text.split("=")[0] for text in wrong)
    with pytest.raises(ConfigError, match=r"^seed: -1 is out of range; expected an integer from 0"):
        hf.compose(["seed=-1"])


def test_what_is_put_in_the_place_of_a_number_out_of_range_is_in_range() -> None:
    for limits in [
        Range(1, 9),
        Range(0, 1, above=True),
        Range(0, 2, above=True, below=True),
        Range(3, 4, or_zero=True),
    ]:
        with pytest.raises(RangeError) as caught:
            limits.check(-5, "key", "a number")
        assert limits.holds(caught.value.inside)


def test_keys_of_several_files_keep_their_lines(tmp_path: Path) -> None:
    (tmp_path / "slo").mkdir()
    (tmp_path / "slo" / "mine.yaml").write_text("name: mine\nttft_ms: {p99: -5}\ntpot_ms: {p90: -7}\n")
    with pytest.raises(ConfigError) as caught:
        hf.compose(["slo=mine"], config_dir=tmp_path)
    assert [line.rpartition(":")[2] for line in str(caught.value).splitlines()[1:]] == ["2)", "3)"]
