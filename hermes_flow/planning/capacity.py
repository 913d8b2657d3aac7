"""Searches the capacity of a design: the highest value of a number at which the SLO is met.

The search brackets the number by doubling and halving, then bisects. Every probe is a whole simulation with the same
random streams, which ends early only when its verdict is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hermes_flow.config.physical_values import out_of_range
from hermes_flow.config.schema import Config, TraceWorkload
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.planning.keys import number_at, with_value
from hermes_flow.planning.probes import Number, Probe, probes_frame
from hermes_flow.planning.verdict import Verdict, judge, judge_backlog

if TYPE_CHECKING:
    import polars as pl

_MOST_DOUBLINGS = 20
_MOST_HALVINGS = 8  # a load of 1/256 is as good as none
_LOADS = ("rate_per_s", "rate_scale", "concurrency")


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer of a capacity search.

    ``value`` is the last value of ``over`` at which every bound of the SLO is met, None where no value was found.
    ``sustained`` is the last value at which the number of requests in flight does not grow until the last arrival;
    None where it grows at every value that was tried. ``interval`` holds the lowest and the highest ``value`` over
    all seeds.
    ``direction`` is "highest" where smaller values are easier, "lowest" where larger ones are. ``limiting`` names
    the bounds that fail next to ``value``. ``monotone`` is False where a harder value met the SLO while an easier
    one did not. ``probes`` are all simulations in order.
    """

    over: str
    value: Number | None
    sustained: Number | None
    interval: tuple[Number, Number] | None
    direction: str
    limiting: tuple[str, ...]
    monotone: bool
    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``capacity`` in the summary."""
        low, high = self.interval or (None, None)
        return {
            "over": self.over,
            "value": self.value,
            "sustained": self.sustained,
            "low": low,
            "high": high,
            "direction": self.direction,
            "limiting": list(self.limiting),
            "monotone": self.monotone,
            "probes": len(self.probes),
            "notes": list(self.notes),
        }

    def frame(self) -> pl.DataFrame:
        """Return one row per probe, in the order in which they ran."""
        return probes_frame(self.probes)


def load_key(config: Config) -> str:
    """Return the key that sets the load: the rate, a trace's speed, or the users of a closed loop."""
    workload = config.workload
    if isinstance(workload, TraceWorkload) and workload.arrivals is None:
        return "workload.rate_scale"
    if getattr(workload, "rate_per_s", None) is not None:
        return "workload.rate_per_s"
    arrivals = getattr(workload, "arrivals", None)
    if isinstance(arrivals, dict) and "concurrency" in arrivals:
        return "workload.arrivals.concurrency"
    return "workload.rate_scale"


def capacity(
    config: Config,
    over: str | None = None,
    *,
    seeds: int = 3,
    tolerance: float = 0.02,
    low: Number | None = None,
    high: Number | None = None,
    on_probe: Callable[[Probe], None] | None = None,
    known: Sequence[Probe] = (),
) -> Capacity:
    """Return how far ``over`` can go while ``config`` meets its SLO.

    ``over`` is a dotted key with a number above 0 (None: the load, see ``load_key``). For a load the highest value
    is looked for; for any other key the highest or the lowest, whichever the verdicts show. Whole numbers stay
    whole. The search ends when the bracket is narrower than ``tolerance`` (a share of the value), or than 1.
    ``low`` and ``high`` bound the search. ``seeds`` searches are made, the first with the config's own seed, for
    ``interval``. ``on_probe`` is called after each probe. ``known`` are probes of an earlier search of the same
    config, which are not simulated again.

    Raises ConfigError where the SLO has no bounds, the key is no number, or the verdict does not depend on it, and
    CompileError where the config as it is cannot run.
    """
    over = over or load_key(config)
    start = number_at(config, over)
    _check_settings(config, seeds, tolerance, low, high)
    search = _Search(config, over, tolerance, (low, high), on_probe)
    search.known = {(probe.value, probe.seed): probe for probe in known}
    first = search.run(config.seed, start)
    if first is None:
        return search.nothing_found()
    ends = [first]
    draws = config.workload.kind != "trace"
    for seed in range(config.seed + 1, config.seed + seeds) if draws else ():
        found = search.run(seed, first)
        if found is not None:
            ends.append(found)
    ends.sort()
    return search.capacity(first, (ends[0], ends[-1]), search.sustained(first), len(ends) < seeds and draws)


def _check_settings(
    config: Config, seeds: int, tolerance: float, low: Number | None, high: Number | None
) -> None:
    if not config.slo.bounded:
        raise ConfigError("slo", "has no bounds, so every load meets it; choose one, as in slo=chat")
    if seeds < 1:
        raise ConfigError("task.seeds", f"{seeds} is below 1")
    if not 0 < tolerance < 1:
        raise ConfigError("task.tolerance", f"{tolerance:g} is not between 0 and 1")
    for name, bound in (("low", low), ("high", high)):
        if bound is not None and not bound > 0:
            raise ConfigError(f"task.{name}", f"{bound:g} is not above 0")
    if low is not None and high is not None and not low < high:
        raise ConfigError("task.high", f"{high:g} is not above task.low, {low:g}")


class _Search:
    """The probes of one search, kept by value and seed."""

    def __init__(
        self,
        config: Config,
        over: str,
        tolerance: float,
        bounds: tuple[Number | None, Number | None],
        on_probe: Callable[[Probe], None] | None,
    ) -> None:
        self.config, self.over, self.tolerance = config, over, tolerance
        self.low, self.high = bounds
        self.is_load = over.rpartition(".")[2] in _LOADS
        self.whole = isinstance(number_at(config, over), int)
        self.probes: dict[tuple[Number, int], Probe] = {}
        self.backlogs: dict[Number, bool] = {}
        self.harder_up = True
        self.on_probe = on_probe
        self.known: dict[tuple[Number, int], Probe] = {}
        self.notes: list[str] = []

    # One simulation

    def met(self, value: Number, seed: int) -> bool:
        probe = self.probes.get((value, seed))
        if probe is None:
            probe = self.known.get((value, seed)) or self._simulate(value, seed)
            self.probes[value, seed] = probe
            if self.on_probe is not None:
                self.on_probe(probe)
        return probe.verdict.met

    def _simulate(self, value: Number, seed: int) -> Probe:
        from hermes_flow.compiler.compile import compile

        try:
            program = compile(self._config(value, seed))
        except CompileError as error:
            if value == number_at(self.config, self.over):
                raise
            return Probe(value, seed, Verdict(False, None, ("cannot run",)), error.problems[0])
        return Probe(value, seed, judge(program))

    def _config(self, value: Number, seed: int) -> Config:
        config = with_value(self.config, self.over, value)
        shift = seed - config.seed
        workload = replace(config.workload, seed=config.workload.seed + shift)
        return replace(config, seed=seed, workload=workload)

    # The bracket

    def run(self, seed: int, start: Number) -> Number | None:
        """Return the hardest value that meets the SLO; None where none does within the bounds."""
        bracket = self._bracket(seed, self._rounded(start))
        if bracket is None:
            return None
        easy, hard = bracket
        while hard is not None and not self._narrow(easy, hard):
            middle = self._middle(easy, hard)
            if self.met(middle, seed):
                easy = middle
            else:
                hard = middle
        return easy

    def _bracket(self, seed: int, start: Number) -> tuple[Number, Number | None] | None:
        """Return a value that meets the SLO and a harder one that does not (None: it is met up to the bound)."""
        meets = self.met(start, seed)
        if not self.is_load and len({value for value, _ in self.probes}) == 1:
            return self._bracket_both_ways(seed, start, meets)
        return self._bracket_one_way(seed, start, meets)

    def _bracket_one_way(self, seed: int, start: Number, meets: bool) -> tuple[Number, Number | None] | None:
        upward = meets == self.harder_up
        value = start
        for doubling in range(_MOST_DOUBLINGS if upward else _MOST_HALVINGS):
            factor = 2.0 if doubling or len(self.probes) == 1 else 1.0 + 4 * self.tolerance
            following = self._step(value, upward, factor)
            if following is None:
                return (value, None) if meets else None
            if self.met(following, seed) != meets:
                return (value, following) if meets else (following, value)
            value = following
        if meets:
            self.notes.append(f"the SLO is still met at {value:g}, where the search ended")
        return (value, None) if meets else None

    def _bracket_both_ways(
        self, seed: int, start: Number, meets: bool
    ) -> tuple[Number, Number | None] | None:
        """Find out whether larger values are easier or harder, going both ways in turn."""
        ends: dict[bool, Number | None] = {True: start, False: start}
        for _ in range(_MOST_DOUBLINGS):
            for upward in (True, False):
                value = ends[upward]
                following = None if value is None else self._step(value, upward, 2.0)
                if following is None or value is None:
                    ends[upward] = None
                    continue
                if self.met(following, seed) != meets:
                    self.harder_up = meets == upward
                    return (value, following) if meets else (following, value)
                ends[upward] = following
            if ends == {True: None, False: None}:
                break
        if meets:
            raise ConfigError(
                "task.over", f"the SLO is met at every value of {self.over} that was tried; nothing limits it"
            )
        return None

    def _step(self, value: Number, upward: bool, factor: float) -> Number | None:
        """Return the next value; None beyond the search's bounds, or where nothing smaller is left."""
        moved = self._rounded(value * factor if upward else value / factor)
        if moved == value:
            moved = value + 1 if upward else value - 1
        if self.high is not None and moved > self.high:
            moved = self._rounded(self.high) if value < self.high else value
        most = self._most_clients()
        if most is not None and upward and moved > most:
            moved = max(most, value)
        if self.low is not None and moved < self.low:
            moved = self._rounded(self.low) if value > self.low else value
        if moved == value or moved <= 0 or out_of_range(with_value(self.config, self.over, moved)):
            return None
        return moved

    def _most_clients(self) -> int | None:
        """Return the requests of a run, where clients are counted: more clients than requests have no work."""
        if not (self.over.startswith("cluster.pools.") and self.over.endswith(".count")):
            return None
        return max((probe.verdict.requests for probe in self.probes.values()), default=0) or None

    def _rounded(self, value: Number) -> Number:
        return max(1, round(value)) if self.whole else float(f"{value:.6g}")

    def _narrow(self, easy: Number, hard: Number) -> bool:
        gap = abs(hard - easy)
        return gap <= 1 if self.whole else gap <= self.tolerance * max(easy, hard)

    def _middle(self, easy: Number, hard: Number) -> Number:
        if self.whole:
            return (int(easy) + int(hard)) // 2
        return self._rounded((easy * hard) ** 0.5)

    # The backlog

    def sustained(self, near: Number) -> Number | None:
        """Return the hardest value whose backlog does not grow, looked for from ``near`` on."""
        easy, hard = (near, None) if self._settles(near) else (self._known_to_settle(near), near)
        value = near
        for _ in range(_MOST_DOUBLINGS if easy is None or hard is None else 0):
            following = self._step(value, self.harder_up == (easy is not None), 2.0)
            if following is None:
                most = self._most_clients()
                if easy is None and most is not None and value >= most:
                    self.notes.append(
                        f"the backlog grows until the last arrival even with {value:,} clients for {most:,} "
                        "requests: the run is too short to tell how many it takes; expected more workload.requests"
                    )
                return easy
            if self._settles(following):
                easy = following
            else:
                hard = following
            value = following
            if easy is not None and hard is not None:
                break
        while easy is not None and hard is not None and not self._narrow(easy, hard):
            middle = self._middle(easy, hard)
            if self._settles(middle):
                easy = middle
            else:
                hard = middle
        return easy

    def _known_to_settle(self, than: Number) -> Number | None:
        """Return the hardest value below ``than`` whose probe had a backlog that settles."""
        sign = 1 if self.harder_up else -1
        known = [
            value
            for (value, seed), probe in self.probes.items()
            if seed == self.config.seed and probe.verdict.sustained and sign * value < sign * than
        ]
        return max(known, key=lambda value: sign * value, default=None)

    def _settles(self, value: Number) -> bool:
        from hermes_flow.compiler.compile import compile

        known = self.probes.get((value, self.config.seed))
        if known is not None and known.verdict.sustained is not None:
            return known.verdict.sustained
        if value not in self.backlogs:
            self.backlogs[value] = judge_backlog(compile(self._config(value, self.config.seed)))
        return self.backlogs[value]

    # The answer

    def capacity(
        self, value: Number, interval: tuple[Number, Number], sustained: Number | None, missing: bool
    ) -> Capacity:
        """Return the answer; ``missing`` tells that some seeds found none."""
        own = [probe for (_, seed), probe in self.probes.items() if seed == self.config.seed]
        met = [probe.value for probe in own if probe.verdict.met]
        failed = [probe for probe in own if not probe.verdict.met]
        sign = 1 if self.harder_up else -1
        beyond = [probe for probe in failed if sign * probe.value > sign * value]
        nearest = min(beyond, key=lambda probe: sign * probe.value, default=None)
        monotone = not any(sign * probe.value < sign * easy for probe in failed for easy in met)
        if not monotone:
            self.notes.append(
                "the verdicts are not monotone: a harder value met the SLO where an easier one did not"
            )
        if missing:
            self.notes.append("some seeds meet the SLO at no value; the interval leaves them out")
        if sustained is not None and sign * sustained < sign * value:
            self.notes.append(
                f"the SLO is met at {value:g} only because the run ends: the backlog still grows there at the last "
                f"arrival, and stays bounded {'up to' if self.harder_up else 'from'} {sustained:g}"
                f"{'' if self.harder_up else ' on'}"
            )
        return Capacity(
            over=self.over,
            value=value,
            sustained=sustained,
            interval=interval,
            direction="highest" if self.harder_up else "lowest",
            limiting=() if nearest is None else nearest.verdict.failing,
            monotone=monotone,
            probes=tuple(self.probes.values()),
            notes=tuple(self.notes),
        )

    def nothing_found(self) -> Capacity:
        """Return the answer where no value meets the SLO."""
        failing = {name for probe in self.probes.values() for name in probe.verdict.failing}
        note = f"no value of {self.over} that was tried meets the SLO"
        return Capacity(
            self.over,
            None,
            None,
            None,
            "highest" if self.harder_up else "lowest",
            tuple(sorted(failing)),
            True,
            tuple(self.probes.values()),
            (note,),
        )
