"""Finds the fewest clients with which a family of designs meets the SLO."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError
from hermes_flow.planning.bounds import need_of, need_of_pair
from hermes_flow.planning.designs import Clients, Family, design_config, llm_pool
from hermes_flow.planning.kept import NOTHING_KEPT, Kept, digest_of
from hermes_flow.planning.perturbed import with_step_times
from hermes_flow.planning.verdict import Verdict, judge

_MOST_CLIENTS = 4096


@dataclass(frozen=True, slots=True)
class Sized:
    """The answer for one family.

    ``clients`` are the fewest that meet the SLO with a backlog that settles; None where there are none, and
    ``problem`` says why. ``smaller`` is the largest design that was tried and misses, with the bounds it misses.
    """

    family: Family
    clients: Clients | None
    problem: str | None = None
    smaller: Clients | None = None
    missing: tuple[str, ...] = ()
    simulations: int = 0


def size(
    config: Config,
    family: Family,
    most: int = _MOST_CLIENTS,
    step_times: float = 1.0,
    kept: Kept = NOTHING_KEPT,
) -> Sized:
    """Return the fewest clients of ``family`` that meet the SLO, looking at no more than ``most`` clients.

    Every step of the LLM clients takes ``step_times`` times as long. What ``kept`` has is not simulated again.
    """
    from hermes_flow.compiler.compile import compile

    one = Clients(1) if family.layout == "replicas" else Clients(1, 1)
    pool = llm_pool(config) if family.layout == "replicas" else "prefill"
    try:
        program = with_step_times(compile(design_config(config, family, one)), step_times)
        need = need_of(program, pool) if family.decode_hardware is None else need_of_pair(program)
    except CompileError as error:
        return Sized(family, None, error.problems[0])
    if need.hopeless is not None:
        return Sized(family, None, need.hopeless)
    fewest = need.fewest(family.layout)
    if fewest.total > most:
        return Sized(family, None, f"needs at least {fewest.total} clients, more than the {most} allowed")
    return _Sizing(config, family, most, step_times, kept).run(fewest)


class _Sizing:
    """The simulations of one family, by clients."""

    def __init__(self, config: Config, family: Family, most: int, step_times: float, kept: Kept) -> None:
        self.config, self.family, self.most, self.step_times = config, family, most, step_times
        self.kept, self.digest = kept, digest_of(config)
        self.verdicts: dict[Clients, Verdict] = {}

    def run(self, fewest: Clients) -> Sized:
        found = self._replicas(fewest) if self.family.layout == "replicas" else self._pairs(fewest)
        missed = [clients for clients in self.verdicts if not self._good(clients)]
        smaller = max(missed, key=lambda clients: (clients.total, clients.prefill), default=None)
        missing = () if smaller is None else self._missing(smaller)
        problem = None if found is not None else self._no_size(smaller)
        return Sized(self.family, found, problem, smaller, missing, len(self.verdicts))

    def _no_size(self, largest: Clients | None) -> str:
        """Return why no number of clients will do; ``largest`` is the largest design that was tried."""
        if self.config.cluster.admission is not None:
            return f"more than {self.most} clients would be needed behind the gateway (cluster.admission)"
        if largest is None or not self._verdict(largest).met:
            return f"more than {self.most} clients would be needed"
        return (
            f"{largest.total} clients meet every bound, but requests in flight still grow at the last arrival: the "
            "workload is too short for its rate, or more clients would be needed"
        )

    def _verdict(self, clients: Clients) -> Verdict:
        if clients not in self.verdicts:
            of = (self.digest, self.family, clients, self.step_times)
            self.verdicts[clients] = self.kept.verdict(of, lambda: self._simulated(clients))
        return self.verdicts[clients]

    def _simulated(self, clients: Clients) -> Verdict:
        from hermes_flow.compiler.compile import compile

        try:
            program = compile(design_config(self.config, self.family, clients))
        except CompileError as error:
            return Verdict(False, None, (error.problems[0],))
        return judge(with_step_times(program, self.step_times))

    def _good(self, clients: Clients) -> bool:
        verdict = self._verdict(clients)
        return verdict.met and verdict.sustained is not False

    def _missing(self, clients: Clients) -> tuple[str, ...]:
        verdict = self._verdict(clients)
        return verdict.failing or ("backlog",)

    def _replicas(self, fewest: Clients) -> Clients | None:
        low, count, step = 0, fewest.prefill, 1
        while not self._good(Clients(count)):
            if count >= self.most:
                return None
            low, count, step = count, min(self.most, count + step), 2 * step
        low = max(low, fewest.prefill - 1)
        while count - low > 1:
            middle = (low + count) // 2
            if self._good(Clients(middle)):
                count = middle
            else:
                low = middle
        return Clients(count)

    def _pairs(self, fewest: Clients) -> Clients | None:
        clients = fewest
        while not self._good(clients):
            missing = self._missing(clients)
            prefill = any(bound.startswith("ttft") for bound in missing)
            decode = not prefill or any(bound.startswith("tpot") for bound in missing)
            clients = Clients(clients.prefill + prefill, clients.decode + decode)
            if clients.total > self.most:
                return None
        shrinking = True
        while shrinking:
            shrinking = False
            for less in (
                replace(clients, prefill=clients.prefill - 1),
                replace(clients, decode=clients.decode - 1),
            ):
                if less.prefill >= fewest.prefill and less.decode >= fewest.decode and self._good(less):
                    clients, shrinking = less, True
                    break
        return clients
