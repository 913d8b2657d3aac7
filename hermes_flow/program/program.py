"""The Program that the compiler hands to the simulator. It is plain data without config objects or simulated time.

Requests are columns, not objects: every per-request figure is a numpy array with one entry per request, in
order of arrival. Durations and instants are integers: nanoseconds, and picoseconds within an LLM step.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hermes_flow.program.admission import AdmissionPolicy, RetryRule
from hermes_flow.program.network import HostMemory, Network
from hermes_flow.program.ops import LoadRoute, Op
from hermes_flow.program.phases import Phase
from hermes_flow.program.pools import Pool
from hermes_flow.program.requests import Requests
from hermes_flow.program.sites import Sites
from hermes_flow.program.text import program_text

WINDOWS_IN_MEMORY = 4
"""The windows of a streamed run whose requests are in memory at the same time."""


@dataclass(frozen=True)
class Attainment:
    """The ``share`` of some requests that has to keep every one of the ``limits``, in seconds by metric."""

    share: float
    limits: dict[str, float]


@dataclass(frozen=True, slots=True)
class SLOBounds:
    """Latency bounds in seconds: ``{"ttft": {50.0: 0.5, …}, "tpot": …, "e2e": …}``, percentile → bound.

    Further metrics are ``itl``, ``stages.NAME``, ``pipelines.NAME.ttft`` and ``classes.NAME.ttft``. Of all
    requests ``within_share`` have to keep every limit of ``within``, in seconds by metric. ``parts`` has what holds
    for the requests of ``pipelines.NAME`` and ``classes.NAME`` alone.
    """

    name: str
    bounds: dict[str, dict[float, float]] = field(default_factory=dict)
    within: dict[str, float] | None = None
    within_share: float = 1.0
    own_classes: tuple[str, ...] = ()  # traffic classes with bounds of their own, to which no others apply
    parts: dict[str, Attainment] = field(default_factory=dict)

    def request_limits(self) -> dict[str, float]:
        """Return the limits on the TTFT, TPOT and E2E of a single request: the loosest bounds, and ``within``."""
        limits: dict[str, float] = {
            name: max(self.bounds[name].values()) for name in ("ttft", "tpot", "e2e") if name in self.bounds
        }
        for name, limit in (self.within or {}).items():
            if name in ("ttft", "tpot", "e2e"):
                limits[name] = min(limit, limits.get(name, limit))
        return limits


@dataclass(frozen=True)
class Program:
    """A compiled simulation: pools, the DAG of ops, and each request's sizes."""

    name: str
    pipeline: str
    cluster: str
    pools: tuple[Pool, ...]
    ops: tuple[Op, ...]
    requests: Requests
    slo: SLOBounds
    seed: int = 0
    network: Network | None = None  # None where nothing moves between clients
    hosts: tuple[HostMemory, ...] = ()  # memories that several clients share
    load_routes: tuple[LoadRoute, ...] = ()
    warnings: tuple[str, ...] = ()
    rejected: dict[int, str] = field(default_factory=dict)  # request → why no client can ever serve it
    record_steps: bool = False
    stream_requests: int | None = None  # of a window; None: the run is held in memory as a whole
    phases: tuple[Phase, ...] = ()  # of a load that is given in stages
    admission: AdmissionPolicy | None = None  # of the gateway; None: there is none
    retries: RetryRule | None = None  # of users who gave up; None: they do not come again
    sites: Sites | None = None  # None: users and clients are in one place
    leaves_out: tuple[str, ...] = ()  # what the workload leaves out of the one that it stands for

    @property
    def followed(self) -> bool:
        """Whether somebody acts on the end of each request: who waits for answers, gives up, or lets others in."""
        requests = self.requests
        return (
            requests.wait_for_answers
            or requests.timeout_ns is not None
            or self.admission is not None
            or self.sites is not None
        )

    def sharing(self, pool: int) -> tuple[int, ...]:
        """Return a pool that ops name, and the pools after it that its router serves, too."""
        return (pool, *(index for index, other in enumerate(self.pools) if other.joins == pool))

    @property
    def answers(self) -> tuple[int, ...]:
        """Indices of the ops that write an answer; the user reads that of the last one a request takes."""
        return tuple(index for index, op in enumerate(self.ops) if op.generate and op.generate.is_answer)

    def __str__(self) -> str:
        title = f"program {self.name}: pipeline {self.pipeline} on cluster {self.cluster}, seed {self.seed}"
        limits = None if self.admission is None else self.admission.limits
        changes = 0 if self.network is None else len(self.network.changes)
        parts = (self.pools, self.ops, self.requests, self.load_routes, self.warnings)
        return program_text(title, *parts, limits, changes, self.sites, self.retries)
