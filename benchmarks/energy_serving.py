"""Power and energy of serving runs on H100 and B200: the ML.ENERGY leaderboard v3 against simulated runs.

``tests/validation/power_measurements.csv`` has of each run (lm-arena-chat) the mean number of sequences, the output
tokens a second, and the mean power of all its GPUs. What it does not have is assumed: prompts of 200 tokens, and
answers whose lengths scatter as far as makes a sequence stand where the leaderboard's users met it: Llama's answers
of 380 tokens after 406 of them, Qwen3's of 620 after 578 (long answers are met more often than short ones).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import hermes_flow as hf
from benchmarks.energy_constants import Constants, MeasuredStep, Shape, drawn, shares
from benchmarks.processes import ROOT

POWER_W = {"h100_sxm": 700.0, "b200_sxm": 1000.0}
NAMES = {
    "llama3_8b": "Llama-3.1-8B",
    "llama3_70b": "Llama-3.1-70B",
    "llama3_405b": "Llama-3.1-405B in fp8",
    "qwen3_14b": "Qwen3-14B",
    "qwen3_32b": "Qwen3-32B",
}
ACTIVE = 0.3
"""It can hardly be distinguished from ``memory`` in these runs, and is that of the A100 and the RTX A6000."""
_PROMPT = 200
_ANSWERS = {"qwen3": (620, 578), "llama3": (380, 406)}  # mean length, and where a sequence stands in it
_GENERATIONS = 30  # requests by users of a closed loop
_MIDDLE = (0.2, 0.6)  # the part of the requests that counts, during which all users are there
_LONGEST = 6  # answers, by their mean length
_FP8 = [f"model.precision.{name}=fp8" for name in ("weights", "activations")]


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run; ``watts`` are those of all its GPUs."""

    gpu: str
    model: str
    devices: int
    batch: int
    tokens_per_s: float
    watts: float

    @property
    def name(self) -> str:
        """The model, its GPUs and the sequences."""
        return f"{NAMES[self.model]}, {self.devices} GPU{'s' * (self.devices > 1)}, {self.batch}"

    @property
    def chosen(self) -> list[str]:
        """The overrides that choose the model."""
        return [f"model={self.model}", *(_FP8 if self.model == "llama3_405b" else ())]

    @property
    def joules(self) -> float:
        """Joules per output token."""
        return self.watts / self.tokens_per_s


@dataclass(frozen=True, slots=True)
class Outcome:
    """The relative errors of one simulated run: of the time of a token, the mean power, and joules per token."""

    run: Run
    time: float
    power: float
    joules: float


@cache
def read(gpu: str) -> tuple[Run, ...]:
    """Return the runs on one GPU."""
    with (ROOT / "tests" / "validation" / "power_measurements.csv").open() as file:
        return tuple(
            Run(
                *(row["hardware"], row["model"], int(row["devices"]), int(row["batch"])),
                *(float(row["output_tokens_per_s"]), float(row["power_w"])),
            )
            for row in csv.DictReader(file)
            if row["hardware"] == gpu
        )


def steps(runs: Sequence[Run]) -> list[MeasuredStep]:
    """Return the mean step of each run at its measured rate; a sequence that leaves is replaced."""
    found = []
    for run in runs:
        mean, stands = _answers(run)
        # Tokens of prompts in a step: a sequence that leaves is replaced.
        prompts = round(run.batch * _PROMPT / mean)
        shape = Shape((1,) * prompts, run.batch, run.batch * (_PROMPT + stands))
        used = shares(run.gpu, run.chosen, run.devices, shape, run.batch / run.tokens_per_s)
        power = run.watts / (run.devices * POWER_W[run.gpu])
        found.append(MeasuredStep(run.model, f"{run.devices} × {run.batch}", "decode", *used, power))
    return found


def at_measured_times(runs: Sequence[Run], constants: Constants) -> list[Outcome]:
    """Return the errors of power and energy, which are the same where the times are measured."""
    errors = [drawn(constants, step.compute, step.memory) / step.power - 1.0 for step in steps(runs)]
    return [Outcome(run, 0.0, error, error) for run, error in zip(runs, errors, strict=True)]


def simulated(run: Run, constants: Constants) -> Outcome:
    """Return the errors of a closed loop with as many users as the run had sequences.

    Only the middle of the run counts, in which all users are there.
    """
    mean, stands = _answers(run)
    spread = (2.0 * stands / mean - 1.0) ** 0.5  # of lengths whose own length halves at that place
    overrides = [
        *("pipeline=llm", f"hardware={run.gpu}", "slo=none", *run.chosen, *constants.overrides),
        *(f"cluster.pools.llm.tensor_parallel={run.devices}", f"cluster.pools.llm.max_num_seqs={run.batch}"),
        *("workload=closed_loop", f"workload.requests={_GENERATIONS * run.batch}"),
        *(f"workload.arrivals.concurrency={run.batch}", f"workload.input_tokens={_PROMPT}"),
        f"workload.output_tokens={{distribution: lognormal, mean: {mean}, cv: {spread:.4g}, "
        f"max: {_LONGEST * mean}}}",
    ]
    result = hf.simulate(hf.compile(hf.compose(overrides)))
    tokens_per_s = result.summary["throughput"]["steady"]["output_tokens_per_s"]
    requests = result.requests.sort("arrival_s")
    first, last = (int(share * len(requests)) for share in _MIDDLE)
    middle = requests[first:last]
    joules = float(middle["energy_j"].sum()) / float(middle["output_tokens"].sum())
    return Outcome(
        run,
        run.tokens_per_s / tokens_per_s - 1.0,
        joules * tokens_per_s / run.watts - 1.0,
        joules / run.joules - 1.0,
    )


def _answers(run: Run) -> tuple[int, int]:
    return _ANSWERS[run.model.partition("_")[0]]
