"""The hardware catalog: well formed, sourced, physically possible, and true to the measured tables."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf

from hermes_flow.config.convert import convert
from hermes_flow.config.overheads import with_overheads
from hermes_flow.config.schema import Efficiency, Hardware
from hermes_flow.errors import ConfigError

CONF = Path(__file__).resolve().parents[2] / "conf"
FOLDER = CONF / "hardware"

# Datasheets: bf16 TFLOP/s (dense), memory GB, memory GB/s, scale-up GB/s in one direction, W.
DATASHEET = {
    "a100_sxm": (312, 80, 2039, 300, 400),
    "b200_sxm": (2250, 180, 7700, 900, 1000),
    "b300_sxm": (2250, 270, 7700, 900, 1100),
    "epyc_zen4_core": (0.166, 12, 20, None, None),  # measured, of one core
    "gb200": (2500, 186, 8000, 900, 1200),
    "gb300": (2500, 288, 8000, 900, 1400),
    "grace_cpu": (None, 480, 500, None, 250),
    "h100_sxm": (989, 80, 3350, 450, 700),
    "h200_sxm": (989, 141, 4800, 450, 700),
    "l40s": (362, 48, 864, 32, 350),
    "mi300x": (1307, 192, 5300, 400, 750),
    "mi355x": (2517, 288, 8000, 538, 1400),
    "rtx4090": (165, 24, 1008, 32, 450),
    "rtx_a6000": (154.8, 48, 768, 56.25, 300),
    "rtx_pro_6000": (468, 102.6, 1792, 64, 600),
    "sapphire_rapids": (114.7, 512, 307, None, 350),
    "tpu_v5e": (197, 16, 820, 50, None),
    "tpu_v6e": (918, 32, 1640, 100, None),
    "tpu_v7": (2307, 192, 7380, 100, None),
}
NAMES = sorted(DATASHEET)
LLM_CPU = "epyc_zen4_core"  # the CPU that an engine was measured on; its fit is to whole steps

# GiB that the driver reports to a process: out-of-memory messages and rocminfo.
REPORTED_GIB = {
    "a100_sxm": 79.25,
    "b200_sxm": 178.35,
    "b300_sxm": 267.69,
    "gb200": 184.31,
    "gb300": 276.50,
    "h100_sxm": 79.11,
    "h200_sxm": 139.80,
    "l40s": 44.42,
    "mi300x": 191.98,
    "mi355x": 301_973_504 / 2**20,
    "rtx4090": 23.52,
    "rtx_pro_6000": 94.97,
}
# What B300 and GB300 reach of their peaks, where large kernels were measured on them
BLACKWELL_ULTRA = {"bf16": 0.77, "fp8": 0.74, "nvfp4": 0.34, "prompts": 0.76}
# Times of large kernels by those on B200: medians of AIConfigurator's tables of SGLang 0.5.14 (Apache-2.0); products
# with 1e11 multiplications or more, and attention over prompts with heads of 128
RATIOS_OF_B300 = {"bf16": 0.927, "fp8": 0.924, "nvfp4": 0.943, "prompts": 0.807}
RATIOS_OF_GB300 = {"bf16": 0.814, "fp8": 0.833, "nvfp4": 0.876, "prompts": 0.708}
SIBLINGS = {"b300_sxm": "b200_sxm", "gb200": "b200_sxm", "gb300": "b200_sxm"}  # whose kernels stand in
FITTED = ["a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm", "l40s", "rtx4090", "rtx_pro_6000"]


@cache
def load(name: str) -> Hardware:
    plain = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    plain = with_overheads(plain, OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "vllm.yaml")), name)
    return convert(Hardware, plain, f"hardware={name}")


def efficiency(name: str) -> Efficiency:
    found = load(name).efficiency
    assert found is not None
    return found


def fractions(fit: Efficiency) -> list[float]:
    found = [fit.prefill_attention.compute]
    found += [value for gemm in fit.gemm.values() for value in (gemm.compute, gemm.memory)]
    found += [gemm.quantize for gemm in fit.gemm.values() if gemm.quantize is not None]
    found += [decode.memory for decode in fit.decode_attention.values()]
    return found + [entry.fraction for entry in fit.all_reduce.values()]


def test_the_catalog_holds_exactly_the_documented_hardware() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.yaml")) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_carries_the_figures_of_its_datasheet(name: str) -> None:
    entry = load(name)
    figures = (
        entry.peak_tflops_bf16,
        entry.memory_gb,
        entry.bandwidth_gb_s,
        entry.scale_up_gb_s,
        entry.power_w,
    )
    assert entry.name == name
    assert figures == DATASHEET[name]


def test_usable_memory_is_what_the_driver_reports_in_gb() -> None:
    usable = {name: load(name).usable_gb for name in NAMES}
    reported = {name: round(gib * 2**30 / 1e9, 2) for name, gib in REPORTED_GIB.items()}
    assert {name: gb for name, gb in usable.items() if gb is not None} == reported


@pytest.mark.parametrize("name", sorted(REPORTED_GIB))
def test_usable_memory_is_near_the_datasheet_read_as_gb_or_as_gib(name: str) -> None:
    entry = load(name)
    assert entry.usable_gb is not None
    assert 0.99 * entry.memory_gb < entry.usable_gb <= entry.memory_gb * 2**30 / 1e9


def test_the_reserve_of_every_gpu_and_of_no_other_device_is_computed_from_its_parts() -> None:
    assert {load(name).reserved_gb for name in NAMES if load(name).kind == "gpu"} == {None}
    assert {load(name).reserved_gb for name in NAMES if load(name).kind != "gpu"} == {0.0}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_writes_out_every_key_so_that_any_can_be_overridden(name: str) -> None:
    entry = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    assert isinstance(entry, dict)
    assert set(entry) == set(Hardware.__slots__) - {
        "engine"
    }  # which is a serving engine's, and need not be there


def test_an_engine_has_the_overheads_of_every_accelerator_of_the_catalog() -> None:
    entries = {name: OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml")) for name in NAMES}
    named = {name: entry["overheads_of"] for name, entry in entries.items() if isinstance(entry, dict)}
    bare = {name for name in NAMES if load(name).kind == "cpu"} - {LLM_CPU}
    assert named == {name: None if name in bare else SIBLINGS.get(name, name) for name in NAMES}
    engine = OmegaConf.to_container(OmegaConf.load(CONF / "engine" / "vllm.yaml"))
    assert isinstance(engine, dict)
    assert set(engine["overheads"]) == {name for name in named.values() if name}


@pytest.mark.parametrize("name", NAMES)
def test_every_block_with_a_figure_names_its_source(name: str) -> None:
    blocks = (FOLDER / f"{name}.yaml").read_text().split("\n\n")
    with_figures = [block for block in blocks if re.search(r"^ *\w+:.*\b[1-9]", block, re.MULTILINE)]
    assert with_figures
    assert [block for block in with_figures if "# source: " not in block] == []


@pytest.mark.parametrize("name", NAMES)
def test_smaller_numbers_are_never_slower_at_the_peak(name: str) -> None:
    entry = load(name)
    if entry.peak_tflops_fp8 is not None:
        assert entry.peak_tflops_bf16 is not None
        assert entry.peak_tflops_fp8 >= entry.peak_tflops_bf16


@pytest.mark.parametrize("name", NAMES)
def test_only_cpus_have_cores_and_all_but_hosts_run_an_engine(name: str) -> None:
    entry = load(name)
    assert (entry.cores is not None) == (entry.kind == "cpu")
    host = entry.kind == "cpu" and name != LLM_CPU
    assert (entry.engine is None) == host
    assert entry.efficiency is None or not host


@pytest.mark.parametrize("name", NAMES)
def test_engine_overhead_says_whether_it_was_measured_on_this_hardware(name: str) -> None:
    engine = load(name).engine
    if engine is not None:
        assert ("not measured on this" in engine.source) == (name not in ("h100_sxm", LLM_CPU))


def test_exactly_the_measured_gpus_have_fitted_efficiencies() -> None:
    own = {name: load(name).efficiency for name in NAMES if load(name).efficiency is not None}
    assert {name: fit.kernels_of for name, fit in own.items() if fit} == {
        **dict.fromkeys([*FITTED, LLM_CPU]),
        **SIBLINGS,
    }


@pytest.mark.parametrize("name", SIBLINGS)
def test_a_gpu_without_measured_kernels_has_all_those_of_its_sibling(name: str) -> None:
    fit, measured = efficiency(name), efficiency(SIBLINGS[name])
    assert "not measured on this GPU" in fit.source
    own = {} if name == "gb200" else BLACKWELL_ULTRA
    products = {
        kind: dataclasses.replace(each, compute=own.get(kind, each.compute))
        for kind, each in measured.gemm.items()
    }
    prompts = dataclasses.replace(
        measured.prefill_attention, compute=own.get("prompts", measured.prefill_attention.compute)
    )
    expected = dataclasses.replace(measured, source="", gemm=products, prefill_attention=prompts)
    assert dataclasses.replace(fit, source="", kernels_of=None) == expected


@pytest.mark.parametrize(("name", "times"), [("b300_sxm", RATIOS_OF_B300), ("gb300", RATIOS_OF_GB300)])
def test_large_kernels_of_blackwell_ultra_take_the_measured_part_of_their_time_on_b200(
    name: str, times: dict[str, float]
) -> None:
    ultra, b200 = load(name), load("b200_sxm")
    peaks = {"bf16": "peak_tflops_bf16", "fp8": "peak_tflops_fp8", "nvfp4": "peak_tflops_fp4"}

    def reached(entry: Hardware, kind: str) -> float:
        assert entry.efficiency is not None
        if kind == "prompts":
            return entry.peak_tflops_bf16 * entry.efficiency.prefill_attention.compute
        return float(getattr(entry, peaks[kind])) * entry.efficiency.gemm[kind].compute

    for kind, time in times.items():
        assert reached(b200, kind) / reached(ultra, kind) == pytest.approx(time, rel=0.04)


@pytest.mark.parametrize("name", FITTED)
def test_fitted_kernels_stay_below_the_peaks_and_report_their_error(name: str) -> None:
    fit = efficiency(name)
    assert all(0 < fraction <= 1 for fraction in fractions(fit))
    assert re.search(r"MAPE .*\d %", fit.source)


@pytest.mark.parametrize("name", ["b200_sxm", "h100_sxm", "h200_sxm", "l40s"])
def test_large_fp8_gemms_beat_bf16_and_fp8_kv_is_read_faster(name: str) -> None:
    entry, fit = load(name), efficiency(name)
    assert entry.peak_tflops_fp8 is not None
    assert entry.peak_tflops_bf16 is not None
    fp8_rate = fit.gemm["fp8"].compute * entry.peak_tflops_fp8
    assert fp8_rate > fit.gemm["bf16"].compute * entry.peak_tflops_bf16
    # Half the bytes per token: the rate of tokens must gain, though the rate of bytes may fall.
    assert 2 * fit.decode_attention["fp8"].memory > fit.decode_attention["bf16"].memory


@pytest.mark.parametrize("name", FITTED)
def test_all_reduce_starts_later_the_more_devices_take_part(name: str) -> None:
    alphas = [entry.alpha_us for _, entry in sorted(efficiency(name).all_reduce.items())]
    assert alphas == sorted(alphas)


def test_a_misspelt_figure_would_be_refused() -> None:
    entry = OmegaConf.to_container(OmegaConf.load(FOLDER / "h100_sxm.yaml"))
    assert isinstance(entry, dict)
    with pytest.raises(ConfigError, match=r"hardware\.bandwith_gb_s.*bandwidth_gb_s"):
        convert(Hardware, {**entry, "bandwith_gb_s": 1}, "hardware")


# The printed fits against the tables they come from. Small shapes that sit in the L2 cache of an L40S are
# left out, as its entry explains.

Floats = NDArray[np.float64]
TABLES = ["a100_sxm", "b200_sxm", "h100_sxm", "h200_sxm", "l40s"]
SLACK = 0.025  # rounding of the constants, and rows that a fit weighed differently


def table(folder: Path, name: str, operator: str) -> pl.DataFrame:
    (path,) = (folder / "kernels" / name).glob(f"vllm*__{operator}_perf.parquet")
    frame = pl.read_parquet(path)
    return frame.filter(pl.col("window_size") == 0) if "window_size" in frame.columns else frame


def columns(frame: pl.DataFrame, *names: str) -> list[Floats]:
    return [frame[name].cast(pl.Float64).to_numpy() for name in names]


def stated_mape(source: str, operator: str) -> float:
    """The first percentage after the operator's name, as a fraction."""
    (percent,) = re.findall(rf"{operator} ([\d.]+) %", source)
    return float(percent) / 100


def mape(predicted_us: Floats, latency_ms: Floats) -> float:
    return float(np.abs(predicted_us / (latency_ms * 1e3) - 1).mean())


@pytest.mark.shared_data
@pytest.mark.parametrize("name", TABLES)
def test_the_gemm_fit_meets_the_measured_gemms_as_stated(shared_data: Path, name: str) -> None:
    entry, fit = load(name), efficiency(name)
    large = (pl.col("n") >= 1024) & (pl.col("k") >= 1024)
    gemm = fit.gemm["bf16"]
    if gemm.by_rows:
        large &= pl.col("n") * pl.col("k") * 2 >= 16_000_000
    frame = table(shared_data, name, "gemm").filter(large & (pl.col("gemm_dtype") == "bfloat16"))
    m, n, k, latency = columns(frame, "m", "n", "k", "latency")
    assert entry.peak_tflops_bf16 is not None
    compute = 2 * m * n * k / (entry.peak_tflops_bf16 * 1e6 * gemm.compute)
    memory = 2 * (m * k + n * k + m * n) / (entry.bandwidth_gb_s * 1e3 * gemm.memory)
    rows = sorted(gemm.by_rows or {1: 1.0})
    factors = np.interp(m, rows, [(gemm.by_rows or {1: 1.0})[each] for each in rows])
    predicted = factors * np.maximum(compute, memory) + gemm.launch_us
    assert mape(predicted, latency) < stated_mape(fit.source, "GEMM") + SLACK
    if gemm.by_rows:
        few = (m > 64) & (m <= 512)
        assert mape(predicted[few], latency[few]) < 0.105


@pytest.mark.shared_data
@pytest.mark.parametrize("name", TABLES)
def test_the_decode_attention_fit_meets_the_measured_kernels_as_stated(shared_data: Path, name: str) -> None:
    entry, fit = load(name), efficiency(name)
    frame = table(shared_data, name, "generation_attention").filter(
        (pl.col("kv_cache_dtype") == "bfloat16") & (pl.col("head_dim") == 128)
    )
    batch, step, heads, kv_heads, latency = columns(
        frame, "batch_size", "step", "num_heads", "num_key_value_heads", "latency"
    )
    kv_heads = np.where(kv_heads == 0, heads, kv_heads)
    decode = fit.decode_attention["bf16"]
    token_bytes = 2 * 2 * 128 * kv_heads
    context = batch * (step + 1)
    rows = np.ones(len(batch), dtype=bool)
    if name == "l40s":
        rows = (context * token_bytes >= 256e6) | (context * token_bytes <= 2e6)
    memory = (context + decode.extra_tokens * batch) * token_bytes
    predicted = memory / (entry.bandwidth_gb_s * 1e3 * decode.memory) + decode.launch_us
    assert mape(predicted[rows], latency[rows]) < stated_mape(fit.source, "decode attention") + SLACK


@pytest.mark.shared_data
@pytest.mark.parametrize("name", TABLES)
def test_the_prefill_attention_fit_meets_the_measured_kernels_as_stated(shared_data: Path, name: str) -> None:
    entry, fit = load(name), efficiency(name)
    frame = table(shared_data, name, "context_attention").filter(
        (pl.col("kv_cache_dtype") == "bfloat16") & (pl.col("head_dim") == 128)
    )
    batch, length, heads, latency = columns(frame, "batch_size", "isl", "num_heads", "latency")
    prefill = fit.prefill_attention
    assert entry.peak_tflops_bf16 is not None
    rate = entry.peak_tflops_bf16 * 1e6 * prefill.compute * length / (length + prefill.half_length)
    predicted = 4 * batch * heads * 128 * length * length / 2 / rate + prefill.launch_us
    assert mape(predicted, latency) < stated_mape(fit.source, "prefill attention") + SLACK
