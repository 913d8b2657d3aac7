"""The joules of steps: worked out by hand, within what a device may draw, and null where nothing is known."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

import pytest
from cost.catalog import deployment, hardware, model, roofline_model
from cost.measured import H100, SMALL, write_gpu

import hermes_flow as hf
from hermes_flow.config.schema import EnergyFit, Experts, Hardware, Model, Speculative
from hermes_flow.cost import cost_models
from hermes_flow.cost.energy import busy_power, power_notes, step_energy
from hermes_flow.errors import ConfigError
from hermes_flow.program.power import BusyPower, StepEnergy
from hermes_flow.program.step_cost import StepCost

# 1,000 operations and 1,000 bytes a second, 100 W: 0.05 J an operation, 0.02 J a byte, 30 W at work.
FIT = EnergyFit("by hand", idle=0.1, active=0.3, compute=0.5, memory=0.2)
SLOW = Hardware("slow", "gpu", 1.0, 1e-6, peak_tflops_bf16=1e-9, power_w=100.0, energy=FIT)
TINY = Model("tiny", "decoder", 2, 8, 2, 1, 4, 16, 100, 64, 1e-6)
LONG = [10**15] * 65  # so long that no limit binds


def unlimited(shape: Model = TINY, machine: Hardware = SLOW, *size: int, **changes: object) -> StepEnergy:
    cost = StepCost(LONG, LONG, LONG, 10**15, prefill_pair_ps=1e15)
    found = step_energy(deployment(shape, machine, *(size or (1, 64, 64)), **changes), cost)
    assert found is not None
    return found


def test_a_step_worked_out_by_hand() -> None:
    weights = 2 * (8 * 16 + 8 * 8 + 8 * 32 + 16 * 8)  # both layers
    head = 8 * 100
    operations = 7 * 2 * weights + 2 * 2 * head  # seven tokens, two of them decode
    pairs = 30 + 5 * (10 + 2.5)  # of the decodes with their context, and of the chunk
    operations += pairs * 4 * 2 * 2 * 4  # four a pair, layer, head and dimension of it
    moved = 2 * (weights + head)  # once a step
    moved += 7 * 2 * 2 * (8 + 16 + 8 + 8 + 8 + 32 + 16 + 8)  # in and out of every product
    moved += 30 * 2 * 2 * 4 * 2  # keys and values of the context, of two layers
    joules = unlimited().step_joules([(5, 10)], 2, 30, seconds=2.0)
    assert joules == pytest.approx(30 * 2 + 0.05 * operations + 0.02 * moved)


def test_a_device_at_rest_draws_its_idle_power_and_one_at_work_no_less_than_the_active() -> None:
    found = unlimited(TINY, SLOW, 2, 64, 64)
    assert (found.idle_w, found.active_w) == pytest.approx((20.0, 60.0))
    assert found.step_joules([], 0, 0, seconds=3.0) == pytest.approx(180.0)


def test_tensor_parallel_devices_together_compute_what_one_does() -> None:
    shape = dataclasses.replace(TINY, kv_heads=2)
    free = dataclasses.replace(SLOW, energy=dataclasses.replace(FIT, memory=1e-12))
    one, two = (unlimited(shape, free, devices, 64, 64) for devices in (1, 2))
    assert two.tokens_j == pytest.approx(one.tokens_j)
    assert (two.decodes_j, two.pair_j) == (pytest.approx(one.decodes_j), pytest.approx(one.pair_j))


def test_each_rank_reads_the_weights_of_its_attention() -> None:
    bytes_only = dataclasses.replace(SLOW, energy=dataclasses.replace(FIT, compute=1e-12))
    one, four = (unlimited(TINY, bytes_only, data_parallel=ranks) for ranks in (1, 4))
    per_token = one.tokens_j[2] - one.tokens_j[1]
    weights = one.tokens_j[1] - per_token
    assert four.tokens_j[8] == pytest.approx(4 * weights + 8 * per_token)


def test_tables_of_many_ranks_are_made_in_parts_and_go_on_from_one_to_the_next() -> None:
    ranks, budget = 100, 200  # 20,000 tokens, more than two parts
    times = [10**15] * (budget + 1)
    cost = StepCost(times, times, times, 10**15, prefill_pair_ps=1e15, attention_ranks=ranks)
    found = step_energy(deployment(TINY, SLOW, 1, budget, budget, data_parallel=ranks), cost)
    assert found is not None
    assert len(found.tokens_j) == len(found.decodes_j) == ranks * budget + 1
    per_token = found.tokens_j[2] - found.tokens_j[1]
    for number in (8191, 8192, 8193, 16385, ranks * budget):
        assert found.tokens_j[number] == pytest.approx(found.tokens_j[1] + (number - 1) * per_token, rel=1e-9)
    few = unlimited(TINY, SLOW, data_parallel=ranks)
    assert list(found.tokens_j[:65]) == pytest.approx(list(few.tokens_j[:65]), rel=1e-12)


def test_time_limits_a_step_by_the_fullest_rank() -> None:
    """With two ranks, five tokens are three on the fullest one, whose time bounds what may be drawn."""
    short = [0, *range(1, 65)]  # picoseconds: so short that the limit always binds
    cost = StepCost(short, [0] * 65, [0] * 65, 0, attention_ranks=2)
    found = step_energy(deployment(TINY, SLOW, 1, 64, 64, data_parallel=2), cost)
    assert found is not None
    drawn = 2 * (1 - FIT.active) * 100.0  # watts of both devices beside the active ones
    assert list(found.tokens_j[:6]) == pytest.approx(
        [0.0, *(drawn * 1e-12 * most for most in (1, 1, 2, 2, 3))]
    )


def test_few_tokens_read_the_weights_of_few_experts() -> None:
    bytes_only = dataclasses.replace(SLOW, energy=dataclasses.replace(FIT, compute=1e-12))
    experts = Experts(count=8, per_token=2, intermediate_size=16)
    found = unlimited(dataclasses.replace(TINY, experts=experts), bytes_only)
    dense = unlimited(TINY, bytes_only)
    one_expert = 0.02 * 2 * 2 * (8 * 32 + 16 * 8)  # two layers of bf16
    router = 0.02 * 2 * (2 * 8 * 8 + 2 * (8 + 8))
    further = found.tokens_j[1] - dense.tokens_j[1] - router
    moved = 0.02 * 2 * 2 * (8 + 32 + 16 + 8)  # of a second row in and out of the experts
    assert further == pytest.approx(one_expert + moved)
    assert found.tokens_j[64] - found.tokens_j[63] < 2 * (found.tokens_j[3] - found.tokens_j[2])


def test_drafting_takes_the_passes_of_both_models() -> None:
    speculative = Speculative(draft=TINY, tokens=3)
    alone, both = unlimited(), unlimited(TINY, SLOW, 1, 64, 16, speculative=speculative)
    passes = 3 * (alone.tokens_j[2] + alone.decodes_j[2])
    assert both.decodes_j[2] == pytest.approx(4 * alone.decodes_j[2] + passes)
    assert both.context_j == pytest.approx(4 * alone.context_j)


@pytest.mark.parametrize("name", ["a100_sxm", "h100_sxm", "rtx_a6000", "l40s"])
@pytest.mark.parametrize("devices", [1, 2])
def test_no_step_draws_more_than_the_power_of_its_devices(name: str, devices: int) -> None:
    place = deployment(model("llama3_8b"), hardware(name), devices, 4096, 128)
    cost = roofline_model().lower(place)
    energy = step_energy(place, cost)
    assert energy is not None
    limit = devices * (place.hardware.power_w or 0.0)
    rng = random.Random(name)
    for _ in range(200):
        decodes = rng.choice([0, 1, 30, 120])
        context = decodes * rng.choice([1, 500, 8000])
        prefills = [(rng.choice([1, 60, 1900]), rng.choice([0, 4000])) for _ in range(rng.randint(0, 2))]
        seconds = cost.step_ps(prefills, decodes, context) * 1e-12
        joules = energy.step_joules(prefills, decodes, context, seconds)
        assert energy.active_w * seconds <= joules <= limit * seconds * (1 + 1e-6)


def test_long_prompts_take_an_a100_to_its_limit_and_decoding_does_not() -> None:
    place = deployment(model("llama3_8b"), hardware("a100_sxm"), 1, 4096, 128)
    cost = roofline_model().lower(place)
    energy = step_energy(place, cost)
    assert energy is not None
    watts = [
        energy.step_joules(*step, seconds=(seconds := cost.step_ps(*step) * 1e-12)) / seconds
        for step in (([(4096, 0)], 0, 0), ([], 8, 4000))
    ]
    assert watts[0] > 0.95 * 400
    assert 0.6 * 400 < watts[1] < 0.9 * 400


def test_a_host_is_busy_by_the_share_of_its_cores() -> None:
    cpu = Hardware("cpu", "cpu", 1.0, 1.0, power_w=200.0, cores=40, energy=EnergyFit("by hand", idle=0.2))
    assert busy_power(cpu, "hardware") == BusyPower(40.0, 200.0)
    assert busy_power(cpu, "hardware", share=0.25) == BusyPower(40.0, 80.0)
    assert busy_power(dataclasses.replace(cpu, power_w=None), "hardware") is None


@pytest.mark.parametrize("lacking", ["power_w", "energy"])
def test_without_a_figure_there_are_no_joules_and_the_note_says_which(lacking: str) -> None:
    machine = dataclasses.replace(SLOW, **{lacking: None})
    found = step_energy(deployment(TINY, machine, 1, 64, 64), StepCost(LONG, LONG, LONG, 1))
    assert found is None
    assert power_notes(machine, found) == (f"power: not known; slow has no figure of {lacking}",)


def test_a_fraction_of_the_power_that_cannot_be_is_refused_by_its_key() -> None:
    for key, value, least in (("idle", 1.2, "0"), ("active", 0.05, "0.1")):
        machine = dataclasses.replace(SLOW, energy=dataclasses.replace(FIT, **{key: value}))
        with pytest.raises(ConfigError, match=rf"hardware\.energy\.{key}.*from {least} to 1"):
            step_energy(deployment(TINY, machine, 1, 64, 64), StepCost(LONG, LONG, LONG, 1))


def test_a_bad_figure_in_a_config_names_its_whole_key() -> None:
    with pytest.raises(hf.ConfigError, match=r"^hardware\.energy\.idle: 7 is out of range"):
        hf.compile(hf.compose(["workload=synthetic", "hardware.energy.idle=7"]))
    with pytest.raises(hf.ConfigError, match=r"pools\.host\.hardware\.energy\.idle: -1 is out of range"):
        hf.compile(hf.compose(["workload=synthetic", "cluster.pools.host.hardware.energy.idle=-1"]))


def test_every_accelerator_says_whether_its_power_was_measured() -> None:
    names = [
        "a100_sxm",
        "b200_sxm",
        "b300_sxm",
        "gb200",
        "gb300",
        "h100_sxm",
        "h200_sxm",
        "l40s",
        "mi300x",
        "mi355x",
    ]
    for name in [*names, "rtx4090", "rtx_a6000", "rtx_pro_6000"]:
        fit = hardware(name).energy
        assert fit is not None
        assert ("not measured on this" in fit.source) == (
            name not in ("a100_sxm", "h100_sxm", "b200_sxm", "rtx_a6000")
        )
        assert 0 < fit.idle < (fit.active or 0) < 1


def test_measured_kernels_give_the_joules_of_their_hardware(tmp_path: Path) -> None:
    place = deployment(SMALL, H100, 1, 512, 64)
    cost = cost_models.parse({"kind": "kernels", "path": str(write_gpu(tmp_path))}, "cost").lower(place)
    energy = step_energy(place, cost)
    assert energy is not None
    seconds = cost.step_ps([(300, 0)], 8, 4000) * 1e-12
    joules = energy.step_joules([(300, 0)], 8, 4000, seconds)
    assert energy.active_w * seconds < joules < 700 * seconds


def test_a_straight_line_is_of_no_hardware_and_has_no_joules() -> None:
    program = hf.compile(hf.compose(["workload=synthetic", "cost=affine", "cost.fixed_us=5000"]))
    (pool,) = [pool for pool in program.pools if pool.name == "llm"]
    assert pool.energy is None
    assert pool.notes[-1] == "power: not known; this cost model is not of any hardware"


def test_compile_prints_where_the_power_is_from() -> None:
    text = " ".join(str(hf.compile(hf.compose(["workload=synthetic", "hardware=a100_sxm"]))).split())
    assert "power: 70 W of 400 W when idle, from 112 W when busy (per device); fit to splitwise-sim's" in text
    assert "power: 60 W of 350 W when idle; SPECpower results" in text
