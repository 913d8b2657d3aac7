"""Constants of power that are fitted without a part of the measurements, and the pages with their errors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import energy_constants, energy_server, energy_shapes
from benchmarks.energy import BEGIN, END, with_errors
from benchmarks.energy_constants import Constants, MeasuredStep
from benchmarks.processes import ROOT

TRUE = Constants(0.25, 1.2, 0.6)


def step(group: str, compute: float, memory: float, power: float | None = None) -> MeasuredStep:
    drawn = energy_constants.drawn(TRUE, compute, memory) if power is None else power
    return MeasuredStep(group, f"{compute}", "decode", compute, memory, drawn)


SOME = [step(group, 0.1 * c, 0.2 * m) for group in ("a", "b") for c in range(3) for m in range(3)]


def test_the_constants_of_steps_without_errors_are_found_again() -> None:
    found = energy_constants.fitted(SOME)
    assert (found.active, found.compute, found.memory) == pytest.approx((0.25, 1.2, 0.6), abs=1e-3)


def test_active_stays_as_it_is_given() -> None:
    found = energy_constants.fitted(SOME, active=0.25)
    assert (found.active, found.compute, found.memory) == pytest.approx((0.25, 1.2, 0.6), abs=1e-3)


def test_a_group_that_is_left_out_has_no_part_in_its_own_constants() -> None:
    wrong = [step("wrong", 0.1, 0.4, power=1.0), step("wrong", 0.2, 0.2, power=0.1)]
    constants, errors = energy_constants.left_out([*SOME, *wrong], "group")["wrong"]
    assert (constants.active, constants.compute, constants.memory) == pytest.approx(
        (0.25, 1.2, 0.6), abs=1e-3
    )
    assert errors == pytest.approx([0.25 + 0.12 + 0.24 - 1.0, (0.25 + 0.24 + 0.12) / 0.1 - 1.0], abs=1e-3)


def test_a_device_draws_no_more_than_its_limit() -> None:
    assert energy_constants.drawn(TRUE, 0.9, 0.9) == 1.0


def test_what_stands_in_for_a_gpu_is_the_mean_of_the_others() -> None:
    gpus = ("a100_sxm", "h100_sxm", "b200_sxm", "rtx_a6000")
    found = energy_constants.mean_of_others("h100_sxm", gpus)
    a100, b200, a6000 = (energy_constants.catalog(gpu) for gpu in ("a100_sxm", "b200_sxm", "rtx_a6000"))
    assert found.memory == pytest.approx((a100.memory + b200.memory + a6000.memory) / 3)
    assert found.compute == pytest.approx((a100.compute + b200.compute) / 2)


def test_both_pages_have_the_same_errors_of_energy() -> None:
    energy, accuracy = (
        (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("energy.md", "accuracy.md")
    )
    part = energy.partition(BEGIN)[2].partition(END)[0].strip()
    assert "model left out" in part
    assert part in accuracy


def test_a_page_without_the_place_for_the_errors_is_refused() -> None:
    with pytest.raises(ValueError, match="errors of energy"):
        with_errors("# Energy\n", "| a |")


@pytest.mark.shared_data
def test_a_shape_of_the_a100_is_met_with_steps_fitted_to_the_other_shapes(shared_data: Path) -> None:
    rows = energy_shapes.read(shared_data)
    row = next(each for each in rows if each.configuration.startswith("BLOOM"))
    found = energy_shapes.by_other_shapes(row, rows, energy_constants.catalog(energy_shapes.GPU))
    assert abs(found.power) < 0.05
    assert abs(found.joules) < 0.05
    parts = (1.0 + found.power) * (1.0 + found.time)
    assert 1.0 + found.joules == pytest.approx(parts)


@pytest.mark.shared_data
def test_the_energy_of_a_batch_is_its_peak_power_and_then_its_mean_power(shared_data: Path) -> None:
    row = energy_shapes.read(shared_data)[0]
    by_hand = 2 * 400 * (1.0 * 0.196652 + 0.735994 * (7.164593 - 0.196652))
    assert (row.devices, row.prompt, row.batch) == (2, 512, 1)
    assert row.joules == pytest.approx(by_hand, rel=1e-4)


@pytest.mark.shared_data
def test_two_gpus_of_a_server_are_met_although_nothing_was_fitted_to_them(shared_data: Path) -> None:
    found = energy_server.simulated(shared_data, 2, energy_constants.catalog(energy_server.GPU))
    assert abs(found.power) < 0.01
    assert abs(found.joules) < 0.1
    assert np.sign(found.joules) == -1  # the host works, too, which is not modelled
