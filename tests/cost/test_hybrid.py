"""``cost=hybrid``: corrections recovered from steps that obey them, carried to other models, and measured servers."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cost.catalog import deployment, hardware, model, roofline, roofline_model
from cost.step_tables import SHAPES, us

import hermes_flow as hf
from hermes_flow.config.schema import Hardware, Model, Sampling
from hermes_flow.cost import cost_models
from hermes_flow.cost.fitted.correction import (
    Corrections,
    Site,
    corrected_us,
    fit_corrections,
    plain_us,
    without_engine,
)
from hermes_flow.cost.fitted.steps import Errors, Steps
from hermes_flow.cost.fitted.tables import read_measurements
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.program.step_cost import StepCost

SMALL = model("llama3_8b", sampling=Sampling())
LARGE = model("llama2_70b", sampling=Sampling())
H100 = hardware("h100_sxm")
LAW = Corrections(
    host_layer_us=400.0,
    token_work=1.6,
    prefill_layer_us=90.0,
    sequence_us=120.0,
    decode_attention=1.4,
    prefill_attention=1.3,
)


def hybrid(law: Corrections = LAW, of: Model = SMALL, machine: Hardware = H100, **changes: Any) -> StepCost:
    """The step of a model by the corrections; ``changes`` are keys of the cost, or of the deployment."""
    keys = {name: changes.pop(name) for name in list(changes) if name in ("measured_on", "ingest_ms")}
    unmeasured = dataclasses.asdict(roofline_model())["unmeasured"]
    given = {"kind": "hybrid", "unmeasured": unmeasured, "measured_on": "h100_sxm", **dataclasses.asdict(law)}
    place = deployment(of, machine, changes.pop("devices", 1), 8192, 64, **changes)
    return cost_models.parse(given | keys, "cost").lower(place)


def kernels_alone(of: Model, machine: Hardware, devices: int, most: tuple[int, int] = (8192, 64)) -> StepCost:
    return roofline(of, without_engine(machine), devices, *most)


def measured_by(law: Corrections, of: Model = SMALL, devices: int = 1) -> Site:
    """Steps that take what the corrected roofline says, as it stands in the step tables."""
    cost = hybrid(law, of, devices=devices)
    made = [([(prompt, 0)] * batch, 0, 0) for prompt, batch, _ in SHAPES[:13]]
    made += [([], batch, int(batch * (prompt + output / 2))) for prompt, batch, output in SHAPES]
    made += [([(300, 200)], 20, 9000), ([(50, 0)], 3, 1500)]
    columns = np.array(
        [
            [
                sum(c for c, _ in step[0]),
                sum(past for _, past in step[0]),
                len(step[0]),
                *step[1:],
                us(cost.step_ps(*step)),
            ]
            for step in made
        ],
        dtype=float,
    ).T
    steps = Steps(*columns, np.arange(len(made)), tuple(str(step) for step in made))  # type: ignore[arg-type]
    return Site(steps, kernels_alone(of, H100, devices), of.layers)


def test_corrections_are_recovered_from_steps_that_obey_them() -> None:
    found = fit_corrections([measured_by(LAW)])
    for name in ("host_layer_us", "token_work", "prefill_layer_us", "sequence_us"):
        assert getattr(found, name) == pytest.approx(getattr(LAW, name), rel=0.07), name
    for name in (
        "decode_attention",
        "prefill_attention",
    ):  # small parts of these steps, so they stay nearer to 1
        assert 1.0 < getattr(found, name) < 1.05 * getattr(LAW, name), name


def test_another_model_on_the_same_hardware_is_predicted_by_them() -> None:
    found = fit_corrections([measured_by(LAW)])
    other = measured_by(LAW, LARGE, devices=4)
    corrected = Errors.of(corrected_us(found, other), other.steps).mean
    plain = Errors.of(
        plain_us(dataclasses.replace(other, kernels=roofline(LARGE, H100, 4, 8192, 64))), other.steps
    ).mean
    assert max(corrected.values()) < 0.04
    assert min(plain.values()) > 0.15


def test_the_step_tables_say_what_the_fit_is_of() -> None:
    site = measured_by(LAW)
    assert corrected_us(LAW, site) == pytest.approx(site.steps.time_us, rel=1e-6)


def test_without_corrections_it_is_the_roofline_of_the_kernels() -> None:
    neutral = Corrections(0.0, 1.0, 0.0, 0.0, 1.0, 1.0)
    ours, theirs = hybrid(neutral), kernels_alone(SMALL, H100, 1)
    for step in (([(700, 100)], 0, 0), ([], 30, 40_000), ([(64, 0)], 8, 900)):
        assert ours.step_ps(*step) == theirs.step_ps(*step)


def test_a_step_takes_at_least_what_the_host_takes_to_launch_it() -> None:
    slow = dataclasses.replace(LAW, host_layer_us=50_000.0)
    assert us(hybrid(slow).tokens_ps[1]) == pytest.approx(50_000 * SMALL.layers)
    assert hybrid(slow).tokens_ps[8192] == hybrid(slow).tokens_ps[1]
    assert hybrid(LAW).tokens_ps[8192] > hybrid(LAW).tokens_ps[1]


def test_other_hardware_takes_the_plain_roofline_and_says_so() -> None:
    other = hardware("l40s")
    found, plain = hybrid(machine=other), roofline(SMALL, other, 1, 8192, 64)
    assert found.tokens_ps == plain.tokens_ps
    assert found.provenance[0] == "plain roofline: the corrections were measured on h100_sxm, and not of l40s"


def test_encoders_take_the_plain_roofline_and_say_so() -> None:
    note = hybrid(of=model("e5_base"), part="encoder").provenance[0]
    assert note == "plain roofline: the corrections were measured on h100_sxm, and not of encoders"


def test_ingest_is_the_hardwares_unless_it_is_given() -> None:
    assert H100.engine is not None
    assert hybrid().ingest_ns == H100.engine.ingest_ms * 1e6
    assert hybrid(ingest_ms=3.0).ingest_ns == 3_000_000


def test_its_origin_and_corrections_are_told() -> None:
    first, second, *rest = hybrid().provenance
    assert first == "hybrid: corrections of unknown origin"
    assert second.startswith("token work × 1.6, at least 400 µs a layer; decode attention × 1.4,")
    assert not any(note.startswith("engine") for note in rest)


@pytest.mark.parametrize(
    ("name", "value"), [("token_work", 0.0), ("host_layer_us", -1.0), ("prefill_attention", -2.0)]
)
def test_corrections_that_cannot_be_are_refused_by_their_key(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"cost.{name}: {value:g} is out of range; expected a number"):
        hybrid(dataclasses.replace(LAW, **{name: value}))


def test_its_figures_must_be_given() -> None:
    with pytest.raises(CompileError, match=r"cost.measured_on: missing|cost.measured_on"):
        hf.compile(hf.compose(["cost=hybrid"]))


@pytest.mark.parametrize("key", ["pipeline_parallel", "data_parallel"])
def test_what_no_correction_was_fitted_to_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"cluster.pools.llm.{key}: cost=hybrid has no corrections for it"):
        hybrid(**{key: 2})


MODELS = {"bloom-176b": "bloom_176b", "llama2-70b": "llama2_70b"}
MACHINES = {"a100-80gb": "a100_sxm", "h100-80gb": "h100_sxm"}
Key = tuple[str, str, int]


@pytest.fixture(scope="module")
def sites(shared_data: Path) -> dict[Key, tuple[Site, Errors]]:
    """Measured servers by model, hardware and devices, with the errors of the plain roofline."""
    path = str(shared_data / "dgx_perf" / "perf_model.csv")
    found = {}
    for name, entry in MODELS.items():
        for machine, of in MACHINES.items():
            measured = read_measurements(path, {"model": name, "hardware": machine}, "cost")
            for devices, steps in measured.by_tensor_parallel.items():
                assert devices is not None
                most = (int(steps.tokens.max()), 64)
                site = Site(
                    steps, kernels_alone(model(entry), hardware(of), devices, most), model(entry).layers
                )
                plain = roofline(model(entry), hardware(of), devices, *most)
                errors = Errors.of(plain_us(dataclasses.replace(site, kernels=plain)), steps)
                found[name, machine, devices] = (site, errors)
    return found


def carried(
    sites: dict[Key, tuple[Site, Errors]], known: Key, asked: Key
) -> tuple[dict[str, float], dict[str, float]]:
    """Errors on one server of corrections fitted to another, and of the plain roofline."""
    found = fit_corrections([sites[known][0]])
    site, plain = sites[asked]
    return Errors.of(corrected_us(found, site), site.steps).mean, plain.mean


@pytest.mark.shared_data
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("turn", [1, -1])
def test_a_model_that_was_not_measured_is_nearer_than_by_the_roofline(
    sites: dict[Key, tuple[Site, Errors]], machine: str, turn: int
) -> None:
    """A third to 0.6 of the roofline's error; decode of BLOOM on H100 and of Llama by BLOOM stay 20 to 32 % off.

    The servers are of 2023, without NCCL's reductions in the switch, which the H100 of the catalog has.
    """
    known, asked = list(MODELS)[::turn]
    ours, plain = carried(sites, (known, machine, 8), (asked, machine, 8))
    for kind in ("prefill", "decode"):
        assert ours[kind] < 0.6 * plain[kind]
    assert ours["prefill"] < 0.22
    assert ours["decode"] < 0.33


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("machine", "devices", "prefill", "decode"),
    [
        ("h100-80gb", 4, 0.15, 0.06),
        ("h100-80gb", 2, 0.12, 0.16),
        ("a100-80gb", 4, 0.19, 0.05),
        ("a100-80gb", 2, 0.13, 0.12),
    ],
)
def test_fewer_devices_are_predicted_from_eight(
    sites: dict[Key, tuple[Site, Errors]], machine: str, devices: int, prefill: float, decode: float
) -> None:
    ours, plain = carried(sites, ("llama2-70b", machine, 8), ("llama2-70b", machine, devices))
    assert ours["prefill"] < min(prefill, plain["prefill"])
    assert ours["decode"] < min(decode, plain["decode"])
