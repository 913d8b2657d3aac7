"""The errors of simulated power and energy, with constants fitted without a part of the measurements and with all."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks import energy_constants, energy_server, energy_serving, energy_shapes
from benchmarks.energy_constants import Constants

LAYERS = {"llama2-70b": 80, "bloom-176b": 70}
MEASURED = (energy_shapes.GPU, *energy_serving.POWER_W, energy_server.GPU)
"""The GPUs whose power was measured."""


@dataclass(frozen=True, slots=True)
class Shapes:
    """The outcomes on A100 by what was left out and where the times come from, shape by shape in the same order.

    With a model and its devices left out: at measured times, as simulated with the catalog's engine, and with an
    engine that launches every kernel. With a shape left out: at measured times, and with steps fitted to the other
    shapes. At last those of the catalog's constants, to which all shapes were fitted, at measured times.
    """

    measured: list[energy_shapes.Outcome]
    simulated: list[energy_shapes.Outcome]
    eager: list[energy_shapes.Outcome]
    shape_measured: list[energy_shapes.Outcome]
    shape_fitted: list[energy_shapes.Outcome]
    catalog: list[energy_shapes.Outcome]


@dataclass(frozen=True, slots=True)
class Serving:
    """The outcomes of serving runs on one GPU, run by run in the same order.

    ``measured`` and ``simulated`` are by constants fitted without the model of a run, at measured and at simulated
    times, and ``catalog`` and ``catalog_simulated`` by those of the catalog.
    """

    gpu: str
    measured: list[energy_serving.Outcome]
    simulated: list[energy_serving.Outcome]
    catalog: list[energy_serving.Outcome]
    catalog_simulated: list[energy_serving.Outcome]


@dataclass(frozen=True, slots=True)
class Found:
    """All outcomes.

    ``servers`` are those of the RTX A6000s with constants fitted to the other server, and ``servers_catalog`` with
    the catalog's. ``gpus`` has, for each GPU, the errors at measured times with the constants that it would have if
    it had not been measured.
    """

    shapes: Shapes
    serving: list[Serving]
    servers: list[energy_server.Outcome]
    servers_catalog: list[energy_server.Outcome]
    gpus: dict[str, list[float]]


def measure(data: Path) -> Found:
    """Fit everything with and without what is left out, and simulate all runs."""
    return Found(
        _shapes(data),
        [_serving(gpu) for gpu in energy_serving.POWER_W],
        [
            energy_server.simulated(data, devices, energy_server.fitted_to(data, other))
            for devices, other in zip(energy_server.SERVERS, reversed(energy_server.SERVERS), strict=True)
        ],
        [
            energy_server.simulated(data, devices, energy_constants.catalog(energy_server.GPU))
            for devices in energy_server.SERVERS
        ],
        {gpu: _without(gpu, data) for gpu in MEASURED},
    )


def _shapes(data: Path) -> Shapes:
    rows = energy_shapes.read(data)
    steps = energy_shapes.steps(rows)
    by_configuration = _constants(energy_constants.left_out(steps, "group"))
    by_shape = _constants(energy_constants.left_out(steps, "shape"))
    own = [by_configuration[row.configuration] for row in rows]
    pairs = list(zip(rows, own, strict=True))
    shape = [(row, by_shape[row.shape]) for row in rows]
    eager = []
    for row, constants in pairs:
        others = [each for each in rows if each.configuration != row.configuration]
        engine = energy_shapes.eager(energy_shapes.eager_layer_us(others, LAYERS))
        eager.append(energy_shapes.simulated(row, constants, engine))
    catalog = energy_constants.catalog(energy_shapes.GPU)
    return Shapes(
        measured=[energy_shapes.at_measured_times(*pair) for pair in pairs],
        simulated=[energy_shapes.simulated(*pair) for pair in pairs],
        eager=eager,
        shape_measured=[energy_shapes.at_measured_times(*pair) for pair in shape],
        shape_fitted=[energy_shapes.by_other_shapes(row, rows, constants) for row, constants in shape],
        catalog=[energy_shapes.at_measured_times(row, catalog) for row in rows],
    )


def _serving(gpu: str) -> Serving:
    runs = energy_serving.read(gpu)
    without = _constants(
        energy_constants.left_out(energy_serving.steps(runs), "group", energy_serving.ACTIVE)
    )
    catalog = energy_constants.catalog(gpu)
    measured: dict[str, energy_serving.Outcome] = {}
    for model, constants in without.items():
        own = [run for run in runs if run.model == model]
        found = energy_serving.at_measured_times(own, constants)
        measured |= {str(run): outcome for run, outcome in zip(own, found, strict=True)}
    return Serving(
        gpu,
        measured=[measured[str(run)] for run in runs],
        simulated=[energy_serving.simulated(run, without[run.model]) for run in runs],
        catalog=energy_serving.at_measured_times(runs, catalog),
        catalog_simulated=[energy_serving.simulated(run, catalog) for run in runs],
    )


def _without(gpu: str, data: Path) -> list[float]:
    """Return the errors of the power of a GPU at measured times, as if it had not been measured."""
    constants = energy_constants.mean_of_others(gpu, MEASURED)
    if gpu == energy_shapes.GPU:
        rows = energy_shapes.read(data)
        return [energy_shapes.at_measured_times(row, constants).power for row in rows]
    if gpu == energy_server.GPU:
        servers = energy_server.SERVERS
        return [energy_server.simulated(data, devices, constants).joules for devices in servers]
    found = energy_serving.at_measured_times(energy_serving.read(gpu), constants)
    return [each.power for each in found]


def _constants(found: dict[str, tuple[Constants, energy_constants.Floats]]) -> dict[str, Constants]:
    return {name: constants for name, (constants, _) in found.items()}
