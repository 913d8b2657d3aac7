"""What is measured: request lists for comparing simulators, the same load at three sizes, and the budgets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# What all cases share: one model and GPU, prefill and decode only, and the defaults for everything else.
SETTINGS = ("model=llama3_8b", "hardware=h100_sxm", "pipeline=llm")

POISSON_LENGTHS = (
    "workload.input_tokens={distribution: normal, mean: 375, std: 60}",
    "workload.output_tokens={distribution: normal, mean: 200, std: 25}",
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request list, the LLM clients that serve it, and what other simulators need for it.

    ``overrides`` make the workload; ``others`` has CPU seconds and peak memory of the whole process as these
    simulators reached them on a machine of the same class.
    """

    name: str
    clients: int
    overrides: tuple[str, ...]
    others: str = ""

    @property
    def all_overrides(self) -> tuple[str, ...]:
        """The whole configuration."""
        return (*SETTINGS, f"cluster.pools.llm.count={self.clients}", *self.overrides)


@dataclass(frozen=True, slots=True)
class RequestList:
    """A list that other simulators were measured with: a file, or the load it was drawn from."""

    name: str
    clients: int
    requests: int
    rate_per_s: float
    lengths: str
    others: str = ""

    def case(self, folder: Path) -> Case:
        """Return the case that reads the file in ``folder``, or draws a list like it where there is none."""
        file = folder / f"{self.name}.parquet"
        if file.is_file():
            return Case(
                self.name, self.clients, ("workload=trace", f"workload.path='{file.resolve()}'"), self.others
            )
        drawn = drawn_load(self.requests, self.rate_per_s, self.lengths)
        return Case(f"{self.name} (drawn)", self.clients, drawn, self.others)


REQUEST_LISTS = (
    RequestList("poisson_n10000_instances1_rps10", 1, 10_000, 10, "poisson", "BLIS 1.1 s"),
    RequestList("poisson_n10000_instances1_rps40", 1, 10_000, 40, "poisson"),
    RequestList("poisson_n10000_instances8_rps320", 8, 10_000, 320, "poisson"),
    RequestList("poisson_n100000_instances8_rps80", 8, 100_000, 80, "poisson", "BLIS 14.3 s, 2,600 MB"),
    RequestList("conv4k_n10000_instances1", 1, 10_000, 6.8, "conv", "Vidur 11.0 s, 1,100 MB"),
    RequestList("conv4k_n10000_instances16", 16, 10_000, 108.9, "conv", "Vidur 15.1 s, 1,100 MB"),
)

LARGEST = "poisson_n100000_instances8_rps80"
SIZES = (10_000, 100_000, 1_000_000)


def drawn_load(requests: int, rate_per_s: float, lengths: str) -> tuple[str, ...]:
    """Return the overrides of a Poisson load with "poisson" (normal) or "conv" (Azure conv) lengths."""
    load = (f"workload.requests={requests}", f"workload.rate_per_s={rate_per_s}")
    if lengths == "conv":
        return ("workload=azure_conv", "workload.drift=[]", *load, "+workload.input_tokens.max=4096")
    return ("workload=synthetic", *load, *POISSON_LENGTHS)


def size_case(requests: int) -> Case:
    """Return the load of the largest list with another number of requests."""
    return Case(f"{requests:,} requests", 8, drawn_load(requests, 80, "poisson"))


@dataclass(frozen=True, slots=True)
class Budget:
    """A bound the project has set itself."""

    name: str
    what: str
    limit: float
    unit: str


BUDGETS = (
    Budget("simulate_s", f"simulate(), {LARGEST}", 1.0, "CPU s"),
    Budget("simulate_and_tables_s", "simulate() and every table of it", 1.5, "CPU s"),
    Budget("peak_mb", "peak memory of that whole process", 400, "MB"),
    Budget("spread", "CPU time a request, 10,000 to 1,000,000 requests: largest / smallest", 1.2, ""),
    Budget("default_job_s", "`hermes-flow`, a fresh process", 3.0, "wall s"),
    Budget("per_job_s", "a further job of a multirun, a tiny simulation included", 0.12, "CPU s"),
)
