"""Power and energy of batches of one shape on A100: splitwise-sim's measurements against simulated runs.

The source (MIT) has, by model, devices, prompt and batch, the time of the prompts and of a token, and the power as
a fraction of the device's limit. Only its A100 rows have power. Its mean power is that of decoding: it hardly grows
with the share of the prompts in a run. Its peak power is that of the prompts. The energy of a run is therefore
taken as the peak power, at most the limit, over the time of the prompts, and the mean power over the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import polars as pl

import hermes_flow as hf
from benchmarks.energy_constants import Constants, MeasuredStep, Shape, drawn, shares

GPU = "a100_sxm"
WATTS = 400.0
OUTPUT = 128
MODELS = {"llama2-70b": "llama2_70b", "bloom-176b": "bloom_176b"}
NAMES = {"llama2-70b": "Llama-2-70B", "bloom-176b": "BLOOM-176B"}
LONGEST = 2048
"""Beyond this prompt the mean power falls, in the end to that of an idle device, while times stay what they were."""
_LARGEST = 2048  # tokens of a step of prompts that the constants are fitted to
EAGER_US = "hardware.engine.eager.layer_us"


@dataclass(frozen=True, slots=True)
class Row:
    """One measured shape: times in seconds, power as a fraction of the limit."""

    model: str
    devices: int
    prompt: int
    batch: int
    prompt_s: float
    token_s: float
    e2e_s: float
    prompt_power: float
    token_power: float

    @property
    def configuration(self) -> str:
        """The model and its devices."""
        return f"{NAMES[self.model]}, {self.devices} A100"

    @property
    def shape(self) -> str:
        """The prompt and the batch."""
        return f"{self.prompt:,} × {self.batch}"

    @property
    def chosen(self) -> list[str]:
        """The overrides that choose the model, with positions for the longest of these runs."""
        return [f"model={MODELS[self.model]}", "model.max_context=4096"]

    @property
    def joules(self) -> float:
        """The energy of the run."""
        prompt = min(1.0, self.prompt_power) * self.prompt_s
        return self.devices * WATTS * (prompt + self.token_power * (self.e2e_s - self.prompt_s))

    @property
    def watts(self) -> float:
        """The mean power of the run."""
        return self.joules / self.e2e_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """The relative errors of one simulated run: of its time, its mean power, and its energy, and its parts."""

    row: Row
    time: float
    power: float
    joules: float


@cache
def read(data: Path) -> tuple[Row, ...]:
    """Return the shapes with power and prompts of at most ``LONGEST`` tokens; repetitions of a shape are averaged."""
    table = (
        pl.read_csv(data / "dgx_perf" / "perf_model.csv")
        .filter((pl.col("average_power") > 0) & (pl.col("prompt_size") <= LONGEST))
        .group_by("model", "tensor_parallel", "prompt_size", "batch_size", maintain_order=True)
        .agg(pl.col(pl.Float64).mean())
    )
    return tuple(
        Row(
            *(row[name] for name in ("model", "tensor_parallel", "prompt_size", "batch_size")),
            *(row[name] / 1e3 for name in ("prompt_time", "token_time", "e2e_time")),
            row["peak_power"],
            row["average_power"],
        )
        for row in table.iter_rows(named=True)
    )


def steps(rows: Sequence[Row]) -> list[MeasuredStep]:
    """Return the steps that constants are fitted to; a decode is in the middle of its answer."""
    found = []
    for row in rows:
        decode = Shape(decodes=row.batch, context=row.batch * (row.prompt + OUTPUT // 2))
        parts = [("decode", decode, row.token_s, row.token_power)]
        if row.batch * row.prompt <= _LARGEST:
            parts.append(("prefill", Shape((row.prompt,) * row.batch), row.prompt_s, row.prompt_power))
        for phase, shape, seconds, power in parts:
            used = shares(GPU, row.chosen, row.devices, shape, seconds)
            found.append(MeasuredStep(row.configuration, row.shape, phase, *used, power))
    return found


def at_measured_times(row: Row, constants: Constants) -> Outcome:
    """Return the error of the energy, and of the mean power, if all steps took as long as measured."""
    prompts = row.batch * row.prompt
    # Larger batches of prompts use the device as the largest step does that was fitted, for longer.
    whole = max(1, prompts // _LARGEST)
    shape = Shape((row.prompt,) * max(1, row.batch // whole))
    prompt = shares(GPU, row.chosen, row.devices, shape, row.prompt_s / whole)
    decode = Shape(decodes=row.batch, context=row.batch * (row.prompt + OUTPUT // 2))
    token = shares(GPU, row.chosen, row.devices, decode, row.token_s)
    joules = drawn(constants, *prompt) * row.prompt_s + drawn(constants, *token) * (row.e2e_s - row.prompt_s)
    error = row.devices * WATTS * joules / row.joules - 1.0
    return Outcome(row, 0.0, error, error)


def simulated(row: Row, constants: Constants, extra: Sequence[str] = ()) -> Outcome:
    """Return the errors of a run of this shape with these constants and further overrides."""
    result = hf.simulate(hf.compile(hf.compose([*_overrides(row), *constants.overrides, *extra])))
    seconds = float(result.requests["e2e_s"].to_numpy().max())
    joules = float(result.clients.filter(pl.col("pool") == "llm")["energy_j"].sum())  # without its host
    return Outcome(
        row, seconds / row.e2e_s - 1.0, joules / seconds / row.watts - 1.0, joules / row.joules - 1.0
    )


def by_other_shapes(row: Row, rows: Sequence[Row], constants: Constants) -> Outcome:
    """Return the errors with step times fitted to the other shapes of its configuration (cost=regression)."""
    others = [each for each in rows if each.configuration == row.configuration and each.shape != row.shape]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shapes.csv"
        pl.DataFrame(
            {
                "prompt": [each.prompt for each in others],
                "batch": [each.batch for each in others],
                "output": [OUTPUT] * len(others),
                "tp": [each.devices for each in others],
                "prefill_ms": [1e3 * each.prompt_s for each in others],
                "decode_ms": [1e3 * each.token_s for each in others],
            }
        ).write_csv(path)
        return simulated(row, constants, ["cost=regression", f"cost.path='{path}'"])


def eager(layer_us: float) -> list[str]:
    """Return the overrides of an engine that launches every kernel of every layer, as engines of 2023 did."""
    never = ["+hardware.engine.eager.above_tokens=0", "+hardware.engine.eager.above_per_sequence=0"]
    return [*never, f"+{EAGER_US}={layer_us:.6g}", "cluster.pools.llm.lookahead=0"]


def eager_layer_us(rows: Sequence[Row], layers: dict[str, int]) -> float:
    """Return what such an engine takes a layer, in µs: the median of these rows' times of a token by their layers.

    Only shapes count whose kernels are far from filling that time: four or more devices, and a batch of 1.
    """
    times = [1e6 * row.token_s / layers[row.model] for row in rows if row.devices >= 4 and row.batch == 1]
    return float(np.median(times))


def _overrides(row: Row) -> list[str]:
    return [
        *("pipeline=llm", f"hardware={GPU}", "slo=none", *row.chosen),
        *(
            f"cluster.pools.llm.tensor_parallel={row.devices}",
            "cluster.pools.llm.max_num_batched_tokens=8192",
        ),
        *("workload=closed_loop", f"workload.requests={row.batch}"),
        f"workload.arrivals.concurrency={row.batch}",
        *(f"workload.input_tokens={row.prompt}", f"workload.output_tokens={OUTPUT}"),
    ]
