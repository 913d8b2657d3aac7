"""Power: of decoding and prefills on A100 against splitwise-sim's figures, and of a server of RTX A6000s in time.

Of splitwise-sim's table only the A100 rows have power; of these only prompts up to 2,048 tokens count: beyond, its
mean power falls to that of a device at rest while times stay what they were.
"""

from __future__ import annotations

import csv
import functools
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from cost.catalog import deployment, hardware, model

import hermes_flow as hf
from hermes_flow.cost.energy import step_energy
from hermes_flow.program.power import StepEnergy
from hermes_flow.program.step_cost import StepCost

pytestmark = pytest.mark.shared_data

MODELS = {"llama2-70b": "llama2_70b", "bloom-176b": "bloom_176b"}
LONG = [10**15] * 2049  # no limit binds: the times are measured
WATTS = 400
A6000_AT_REST = 33.0


@functools.cache
def a100(name: str, devices: int) -> StepEnergy:
    cost = StepCost(LONG, LONG[:65], LONG[:65], 10**15, prefill_pair_ps=1e15)
    found = step_energy(deployment(model(name), hardware("a100_sxm"), devices, 2048, 64), cost)
    assert found is not None
    return found


def errors(folder: Path, phase: str) -> list[float]:
    """Relative errors of the power, one per shape, held to what the device may draw."""
    table = pl.read_csv(folder / "dgx_perf" / "perf_model.csv").filter(
        (pl.col("average_power") > 0) & (pl.col("prompt_size") <= 2048)
    )
    shape = ("model", "tensor_parallel", "prompt_size", "batch_size")
    found = []
    shapes = table.group_by(*shape, maintain_order=True).agg(pl.col(pl.Float64).mean())
    for row in shapes.iter_rows(named=True):
        batch, prompt, devices = row["batch_size"], row["prompt_size"], row["tensor_parallel"]
        if phase == "prefill" and batch * prompt > 2048:
            continue
        # A decode is in the middle of its 128 tokens.
        decode = ([], batch, batch * (prompt + 64)), row["token_time"], row["average_power"]
        prefill = ([(prompt, 0)] * batch, 0, 0), row["prompt_time"], row["peak_power"]
        step, ms, measured = decode if phase == "decode" else prefill
        joules = a100(MODELS[row["model"]], devices).step_joules(*step, seconds=ms / 1e3)
        found.append(min(1.0, joules / (ms / 1e3) / (devices * WATTS)) / measured - 1)
    return found


def test_only_the_a100_has_power_in_the_table(shared_data: Path) -> None:
    table = pl.read_csv(shared_data / "dgx_perf" / "perf_model.csv").filter(pl.col("peak_power") > 0)
    assert table["hardware"].unique().to_list() == ["a100-80gb"]


@pytest.mark.parametrize(
    ("phase", "shapes", "stated", "worst"), [("decode", 36, 0.022, 0.08), ("prefill", 28, 0.068, 0.28)]
)
def test_the_power_of_an_a100_is_met_as_stated(
    shared_data: Path, phase: str, shapes: int, stated: float, worst: float
) -> None:
    found = np.abs(errors(shared_data, phase))
    assert len(found) == shapes
    assert found.mean() < stated + 0.001
    assert found.max() < worst


@functools.cache
def server(folder: Path, devices: int) -> tuple[list[float], hf.Result]:
    """The server's watts second by second, and the run of its requests on so many devices."""
    with (folder / "power" / f"server_power_tp{devices}.tsv").open() as file:
        watts = [float(row["power_w"]) for row in csv.DictReader(file, delimiter="\t")]
    workload = folder / "power" / "workload.parquet"
    overrides = [
        *("pipeline=llm", "model=llama3_8b", "hardware=rtx_a6000", "workload=trace"),
        *(f"workload.path='{workload}'", f"cluster.pools.llm.tensor_parallel={devices}"),
    ]
    return watts, hf.simulate(hf.compile(hf.compose(overrides)))


def at_rest(watts: list[float]) -> float:
    """The server between the bursts, once its devices have gone to rest."""
    return float(np.median([each for each in watts if each < min(watts) + 30]))


def mean_watts(folder: Path, devices: int, host_w: float) -> float:
    """The simulated server over the time that was measured: its host draws ``host_w`` all along."""
    watts, result = server(folder, devices)
    end_s, measured_s = result.recording.end_ns / 1e9, len(watts)
    joules = result.clients.filter(pl.col("pool") == "llm")["energy_j"].sum()
    rest_w = devices * A6000_AT_REST
    return host_w + (joules + (measured_s - end_s) * rest_w) / measured_s


def test_the_bursts_of_the_server_last_as_long_as_simulated(shared_data: Path) -> None:
    for devices in (1, 2):
        watts, result = server(shared_data, devices)
        assert result.recording.end_ns / 1e9 == pytest.approx(len(watts), abs=1.5)


@pytest.mark.parametrize(("devices", "error"), [(1, -0.030), (2, -0.001)])
def test_the_servers_mean_power_is_met_with_the_host_as_with_one_gpu(
    shared_data: Path, devices: int, error: float
) -> None:
    # The host is what the server of one GPU draws at rest, but for the GPU: nothing is fitted to that of two.
    host_w = at_rest(server(shared_data, 1)[0]) - A6000_AT_REST
    measured = float(np.mean(server(shared_data, devices)[0]))
    found = mean_watts(shared_data, devices, host_w) / measured - 1
    assert abs(found) < 0.05
    assert found == pytest.approx(error, abs=0.005)


def test_what_two_gpus_draw_at_rest_is_met_from_one(shared_data: Path) -> None:
    one, two = (at_rest(server(shared_data, devices)[0]) for devices in (1, 2))
    assert one + A6000_AT_REST == pytest.approx(two, rel=0.03)


@pytest.mark.parametrize(("devices", "error"), [(1, -0.071), (2, -0.026)])
def test_power_while_the_bursts_decode_is_met_as_stated(
    shared_data: Path, devices: int, error: float
) -> None:
    watts, result = server(shared_data, devices)
    (pool,) = [pool for pool in result.program.pools if pool.name == "llm"]
    assert isinstance(pool.energy, StepEnergy)
    host_w = at_rest(server(shared_data, 1)[0]) - A6000_AT_REST
    seconds = result.recording.clients[-1].busy_ns / 1e9
    work_j = float(result.energies.work_j[-1])
    measured = float(np.median([each for each in watts if each > 0.95 * max(watts)]))
    assert (host_w + work_j / seconds) / measured - 1 == pytest.approx(error, abs=0.01)
