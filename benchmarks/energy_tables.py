"""The tables and the words of the accuracy of power and energy, on docs/accuracy.md and docs/energy.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from benchmarks import energy_serving
from benchmarks.energy_errors import Found, Serving, Shapes
from benchmarks.error_text import signed, size, table
from benchmarks.wrapping import wrapped

_MANY = 250
GPUS = {"a100_sxm": "A100", "h100_sxm": "H100", "b200_sxm": "B200", "rtx_a6000": "RTX A6000"}

HEADLINE = """
Power is the mean over a run, and energy that of an output token. At measured times the constants of power alone make
the error. At simulated times the error of the times comes on top:
"""

SECTION = """
## Power and energy

A device draws `power_w · min(1, active + compute · u + memory · v)` ([energy](energy.md)). The three constants of a
GPU are fitted to measured power (least mean size of relative errors). Here they are fitted again, each time without
a part of the measurements, and this part is simulated with the result.

**Batches of one shape on A100** (splitwise-sim, MIT). 36 shapes of Llama-2-70B and BLOOM-176B with 128 output
tokens have power; the rows of H100 have none. The energy of a run is taken as the peak power of its row, at most
the limit of the device, during the prompts, and as the mean power afterwards, because the mean power hardly depends
on the share of the prompts. Prompts above 2,048 tokens are left out: their mean power falls, in the end to that of
an idle device, while the times grow as before.

Most of the worst errors are errors of time. The measured engine is one of 2023, which takes 42 to 50 ms for a token
of Llama-2-70B on four GPUs as on eight. The catalog's engine is one of today. An engine that launches every kernel
from the host explains most of the difference (0.56 to 0.62 ms a layer, the median of the other configurations).
What remains is that sixteen prompts took 3.8 to 7.1 times as long as four, which is not explained.
"""

SERVING = """
**Serving runs on H100 and B200** (ML.ENERGY leaderboard v3), each with its model left out of the fit. A row has the
mean errors of runs with 8 to 511 sequences. Lengths of prompts and answers are assumed, and the settings of the
engine are not recorded. The power is that of all GPUs without their host. With more than {many} sequences the
simulation is {least} to {most} too fast, so joules per token are too low there.
"""

SERVERS = """
**A server with RTX A6000s** (LLMServingSim, MIT), second by second. The constants are fitted to the server with the
other number of GPUs. The host counts with what the server of one GPU draws when idle. It draws more while the GPUs
work, which is not modelled. The power of the server contains its idle power, so the energy above idle is the harder
test, and counts as the energy of an output token.
"""

GPUS_LEFT_OUT = """
**GPUs that were left out.** The catalog gives a GPU without measured power the mean constants of the measured ones.
Here each measured GPU is treated in this way, at measured times (the RTX A6000: the energy above idle of its two
servers).
"""


class Outcome(Protocol):
    """The relative errors of one run."""

    @property
    def time(self) -> float:
        """The error of its time."""

    @property
    def power(self) -> float:
        """The error of its mean power."""

    @property
    def joules(self) -> float:
        """The error of the joules per output token."""


def headline(found: Found) -> str:
    """Return the short table: what was left out of the fit with the worst first, and then what was fitted."""
    return table(["power and energy", "runs", "times", "power", "J per output token"], _rows(found))


def summary(found: Found) -> str:
    """Return the part of docs/energy.md."""
    return "\n\n".join([wrapped(HEADLINE.strip("\n")), headline(found)])


def section(found: Found) -> list[str]:
    """Return the parts of the section of docs/accuracy.md."""
    return [
        SECTION,
        _shapes(found.shapes),
        _serving_text(found.serving),
        _serving(found.serving),
        SERVERS,
        _servers(found),
        GPUS_LEFT_OUT,
        _gpus(found),
    ]


def _rows(found: Found) -> list[list[str]]:
    shapes = found.shapes
    without: list[tuple[str, Sequence[Outcome], str]] = [
        ("A100, model and number of GPUs left out", shapes.simulated, "simulated, today's engine"),
        ("A100, model and number of GPUs left out", shapes.eager, "simulated, engine of 2023"),
        ("A100, shape left out", shapes.shape_fitted, "fitted to the other shapes"),
        *((f"{GPUS[each.gpu]}, model left out", each.simulated, "simulated") for each in found.serving),
        ("RTX A6000s (energy above idle), number of GPUs left out", found.servers, "simulated"),
    ]
    cells = [(_sizes(runs)[2], [what, str(len(runs)), times, *_cells(runs)]) for what, runs, times in without]
    means = [float(np.abs(errors).mean()) for errors in found.gpus.values()]
    count, mean = sum(len(errors) for errors in found.gpus.values()), float(np.mean(means))
    left_out = ["a GPU left out, mean of four GPUs", str(count), "measured", *[size(100 * mean)] * 2]
    rows = [row for _, row in sorted([*cells, (mean, left_out)], key=lambda each: -each[0])]
    fitted: list[tuple[str, Sequence[Outcome], str]] = [
        *((f"{GPUS[each.gpu]}, fitted", each.catalog_simulated, "simulated") for each in found.serving),
        ("RTX A6000s (energy above idle), fitted to one GPU", found.servers_catalog, "simulated"),
        ("A100, fitted", shapes.catalog, "measured"),
    ]
    return rows + [[what, str(len(runs)), times, *_cells(runs)] for what, runs, times in fitted]


def _shapes(shapes: Shapes) -> str:
    kinds = [
        ("simulated, today's engine", "model and number of GPUs", shapes.simulated),
        ("simulated, engine of 2023", "model and number of GPUs", shapes.eager),
        ("fitted to the other shapes", "shape", shapes.shape_fitted),
        ("measured", "model and number of GPUs", shapes.measured),
        ("measured", "shape", shapes.shape_measured),
        ("measured", "nothing", shapes.catalog),
    ]
    rows = []
    for times, what, outcomes in kinds:
        configurations = sorted({each.row.configuration for each in outcomes})
        parts = [
            (name, [each for each in outcomes if each.row.configuration == name]) for name in configurations
        ]
        for name, part in sorted(parts, key=lambda each: -_sizes(each[1])[2]):
            if times != "measured":
                rows.append([times, what, name, str(len(part)), *_signs(part), _worst(part)])
        name = f"**{times}, mean size**"
        rows.append([name, what, "", str(len(outcomes)), *_all_sizes(outcomes), _worst(outcomes)])
    head = ["times", "left out", "model", "shapes", "time", "power", "J per token", "worst J per token"]
    return table(head, rows)


def _serving_text(found: Sequence[Serving]) -> str:
    """Return the introduction to the serving runs, with how much too fast those of many sequences are."""
    fast = [-100 * each.time for serving in found for each in serving.simulated if each.run.batch > _MANY]
    return SERVING.format(many=_MANY, least=f"{min(fast):.0f}", most=f"{max(fast):.0f} %")


def _serving(found: Sequence[Serving]) -> str:
    rows = []
    for serving in found:
        groups = sorted({(each.run.model, each.run.devices) for each in serving.simulated})
        own = [(_of(serving.simulated, *group), _of(serving.measured, *group)) for group in groups]
        for simulated, measured in sorted(own, key=lambda each: -_sizes(each[0])[2]):
            run = simulated[0].run
            name = f"{GPUS[serving.gpu]} × {run.devices}, {energy_serving.NAMES[run.model]}"
            at_measured = signed(100 * float(np.mean([each.power for each in measured])))
            rows.append([name, str(len(simulated)), at_measured, *_signs(simulated), _worst(simulated)])
        rows.append(
            [
                f"**{GPUS[serving.gpu]}, mean size**",
                str(len(serving.simulated)),
                size(100 * _sizes(serving.measured)[1]),
                *_all_sizes(serving.simulated),
                "",
            ]
        )
    return table(
        [
            *("GPUs, model", "runs", "power at measured times", "time of a token", "power"),
            *("J per token", "worst J per token"),
        ],
        rows,
    )


def _of(outcomes: Sequence[energy_serving.Outcome], model: str, devices: int) -> list[energy_serving.Outcome]:
    return [each for each in outcomes if (each.run.model, each.run.devices) == (model, devices)]


def _servers(found: Found) -> str:
    rows = []
    for fitted, outcomes in (("the other server", found.servers), ("one GPU", found.servers_catalog)):
        for each in sorted(outcomes, key=lambda outcome: -abs(outcome.joules)):
            errors = (each.joules, each.decoding, each.power, each.time)
            gpus = f"{each.devices} GPU{'s' * (each.devices > 1)}"
            rows.append([gpus, fitted, *(signed(100 * error) for error in errors)])
    head = ["server", "fitted to", "J per token above idle", "power while decoding", "power", "time"]
    return table(head, rows)


def _gpus(found: Found) -> str:
    rows = []
    for gpu, errors in sorted(found.gpus.items(), key=lambda item: -float(np.abs(item[1]).mean())):
        mean, bias = (100 * float(value) for value in (np.abs(errors).mean(), np.mean(errors)))
        rows.append([GPUS[gpu], str(len(errors)), size(mean), signed(bias)])
    return table(["GPU left out", "runs", "power", "bias"], rows)


def _sizes(outcomes: Sequence[Outcome]) -> tuple[float, float, float]:
    """Return the mean sizes of the errors of time, power and joules."""
    found = [[each.time, each.power, each.joules] for each in outcomes]
    time, power, joules = np.abs(found).mean(axis=0).tolist()
    return time, power, joules


def _cells(outcomes: Sequence[Outcome]) -> list[str]:
    return [size(100 * each) for each in _sizes(outcomes)[1:]]


def _all_sizes(outcomes: Sequence[Outcome]) -> list[str]:
    return [size(100 * each) for each in _sizes(outcomes)]


def _signs(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the mean errors of time, power and joules, with their signs."""
    found = [[each.time, each.power, each.joules] for each in outcomes]
    return [signed(100 * each) for each in np.mean(found, axis=0).tolist()]


def _worst(outcomes: Sequence[Outcome]) -> str:
    return signed(100 * max((each.joules for each in outcomes), key=abs))
