"""What an engine adds on a hardware is the engine's, changed by single figures of the hardware."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.schema import EngineOverhead
from hermes_flow.errors import ConfigError, HermesFlowError

SHORT = ("pipeline=llm", "workload=synthetic", "workload.requests=40", "workload.rate_per_s=2")
FULL = "{source: mine, step_us: 1, sequence_us: 2, attention_launch: 0.5, ingest_ms: 3}"


def overheads(*overrides: str, pool: str = "llm", config_dir: Path | None = None) -> EngineOverhead:
    found: EngineOverhead | None = (
        hf.compose(overrides, config_dir=config_dir).cluster.pools[pool].hardware.engine
    )
    assert found is not None
    return found


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


def test_the_overheads_of_a_hardware_are_those_that_its_engine_has_for_it() -> None:
    config = hf.compose([])
    assert config.hardware.engine == config.engine.overheads["h100_sxm"]
    assert overheads("hardware=l40s") == config.engine.overheads["l40s"]
    own = "hardware@cluster.pools.decode.hardware=a100_sxm"
    assert overheads("cluster=disaggregated", own, pool="decode") == config.engine.overheads["a100_sxm"]
    assert overheads("cluster=disaggregated", own, pool="prefill") == config.engine.overheads["h100_sxm"]


def test_a_figure_of_the_hardware_reaches_every_pool_that_took_it() -> None:
    base = hf.compose([]).engine.overheads["h100_sxm"]
    for pool in ("prefill", "decode"):
        assert overheads("cluster=disaggregated", "hardware.engine.ingest_ms=5", pool=pool) == replace(
            base, ingest_ms=5.0
        )
    one = (
        "cluster=disaggregated",
        "hardware.engine.ingest_ms=5",
        "cluster.pools.decode.hardware.engine.layer_us=3",
    )
    assert overheads(*one, pool="prefill") == replace(base, ingest_ms=5.0)
    assert overheads(*one, pool="decode") == replace(base, ingest_ms=5.0, layer_us=3.0)


def test_figures_are_replaced_level_by_level_and_null_takes_them_away() -> None:
    base = hf.compose([]).engine.overheads["h100_sxm"]
    assert base.sampler is not None
    sampler = replace(base.sampler, sort_us=0.0)
    assert overheads("hardware.engine.sampler.sort_us=0") == replace(base, sampler=sampler)
    assert overheads("hardware.engine={sampler: {sort_us: 0}}") == replace(base, sampler=sampler)
    assert overheads("hardware.engine.sampler=null") == replace(base, sampler=None)
    assert hf.compose(["hardware.engine=null"]).cluster.pools["llm"].hardware.engine is None


def test_another_engine_brings_overheads_of_its_own(tmp_path: Path) -> None:
    mine = "defaults: [vllm, _self_]\nname: mine\noverheads:\n  h100_sxm: {step_us: 70}\n  new_gpu: "
    write(tmp_path, "engine/mine", mine + FULL)
    base = hf.compose([]).engine.overheads["h100_sxm"]
    assert overheads("engine=mine", config_dir=tmp_path) == replace(base, step_us=70.0)
    decode = ("cluster=disaggregated", "engine@cluster.pools.decode.engine=mine")
    assert overheads(*decode, pool="decode", config_dir=tmp_path) == replace(base, step_us=70.0)
    assert overheads(*decode, pool="prefill", config_dir=tmp_path) == base
    found = overheads("engine=mine", "hardware.overheads_of=new_gpu", config_dir=tmp_path)
    assert found == EngineOverhead("mine", 1, 2, 0.5, 3)
    changed = overheads("engine.overheads.h100_sxm.step_us=9", "hardware.engine.ingest_ms=1")
    assert changed == replace(base, step_us=9.0, ingest_ms=1.0)


def test_the_gpu_of_an_encoder_takes_the_overheads_of_the_engine_chosen_for_all(tmp_path: Path) -> None:
    write(
        tmp_path,
        "engine/mine",
        "defaults: [vllm, _self_]\nname: mine\noverheads: {a100_sxm: {ingest_ms: 44}}\n",
    )
    found = overheads("pipeline=rag", "engine=mine", pool="embed", config_dir=tmp_path)
    assert found == replace(hf.compose([]).engine.overheads["a100_sxm"], ingest_ms=44.0)
    assert hf.compose(["pipeline=rag"]).cluster.pools["retrieval"].hardware.engine is None


def test_entries_built_on_a_hardware_inherit_its_overheads_under_any_name(tmp_path: Path) -> None:
    calibrated = "name: fit\nengine:\n  source: mine\n  step_us: 12\n  sequence_us: 3\n  ingest_ms: 5\n"
    write(tmp_path, "hardware/fit", "defaults: [h200_sxm, _self_]\n" + calibrated)
    write(
        tmp_path,
        "hardware/again",
        "defaults: [fit, _self_]\nname: again\nengine: {step_us: 14, sampler: null}\n",
    )
    base = hf.compose([]).engine.overheads["h200_sxm"]
    fitted = replace(base, source="mine", step_us=12.0, sequence_us=3.0, ingest_ms=5.0)
    assert overheads("hardware=fit", config_dir=tmp_path) == fitted
    assert overheads("hardware=again", config_dir=tmp_path) == replace(fitted, step_us=14.0, sampler=None)


@pytest.mark.parametrize("name", ["my_gpu", "h100_sxm"])
def test_a_hardware_with_figures_of_its_own_takes_nothing_of_the_engine(tmp_path: Path, name: str) -> None:
    text = f"name: {name}\nkind: gpu\nmemory_gb: 96\nbandwidth_gb_s: 4000\npeak_tflops_bf16: 1200\nengine: {FULL}\n"
    write(tmp_path, "hardware/first_version", text)
    assert overheads("hardware=first_version", config_dir=tmp_path) == EngineOverhead("mine", 1, 2, 0.5, 3)


def test_overheads_that_the_engine_does_not_have_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        hf.compose(["hardware.overheads_of=h100_sxn"])
    assert str(error.value) == (
        "hardware.overheads_of: the engine vllm has no overheads of 'h100_sxn' "
        "(null takes only the figures of hardware.engine); did you mean 'h100_sxm'?"
    )
    write(tmp_path, "engine/mine", "name: mine\n")
    own = ("cluster=disaggregated", "hardware@cluster.pools.decode.hardware=l40s")
    with pytest.raises(
        ConfigError, match=r"^cluster\.pools\.decode\.hardware\.overheads_of: the engine mine has"
    ):
        hf.compose([*own, "engine@cluster.pools.decode.engine=mine"], config_dir=tmp_path)
    # A hardware that no pool takes need not have any.
    hf.compose(
        [
            "engine=mine",
            "hardware.overheads_of=null",
            *own,
            "cluster.pools.decode.hardware.overheads_of=null",
        ],
        config_dir=tmp_path,
    )


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("hardware.engine.stepp_us=4", "hardware.engine.stepp_us: unknown key; did you mean 'step_us'?"),
        ("hardware.engin.step_us=4", "hardware.engin: unknown key; did you mean 'engine'?"),
        ("hardware.engine.step_us=x", "hardware.engine.step_us: 'x' is not a number"),
        ("hardware.engine=3", "hardware.engine: 3 is not a mapping"),
        ("~hardware.engine.sampler", "hardware.engine.sampler=null takes away what the engine has"),
    ],
)
def test_mistakes_in_a_figure_are_named(override: str, problem: str) -> None:
    with pytest.raises(HermesFlowError) as error:
        hf.compose([override])
    assert problem in str(error.value)


def test_only_figures_without_an_effect_are_reported() -> None:
    def warnings(*overrides: str) -> list[str]:
        program = hf.compile(hf.compose([*SHORT, *overrides]))
        return [text for text in program.warnings if "no effect" in text]

    used = "engine.overheads.h100_sxm.layer_us=30", "hardware.engine.ingest_ms=5"
    assert warnings(*used, "cluster.pools.llm.hardware.engine.step_us=4") == []
    assert warnings("hardware=l40s", "hardware.overheads_of=h100_sxm") == []
    (unused,) = warnings("engine.overheads.l40s.layer_us=30")
    assert unused.startswith("engine.overheads.l40s.layer_us: 30 has no effect")
