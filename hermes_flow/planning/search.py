"""One capacity search: a bracket around the answer, which is narrowed by bisection, and the end of the backlog."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hermes_flow.config.physical_values import out_of_range
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.planning.kept import NOTHING_KEPT, Kept, digest_of
from hermes_flow.planning.keys import number_at, value_at, with_value
from hermes_flow.planning.perturbed import with_step_times
from hermes_flow.planning.probes import Number, Probe
from hermes_flow.planning.verdict import CANNOT_RUN, Verdict, judge, judge_backlog

_MOST_DOUBLINGS = 20
_MOST_HALVINGS = 8  # a load of 1/256 is as good as none
_BEYOND = (
    5  # loads in a row, each twice the one before, with a backlog that grows: another one tells nothing new
)
_FAR = (1.12, 1.3)  # where verdicts alternate by chance, they do so far from the answer, too
_CORRECTIONS = 3
_LOADS = ("rate_per_s", "rate_scale", "concurrency")


class Search:
    """The probes of one search, kept by value and seed.

    ``step_times`` multiplies the time of every step of the LLM clients.
    """

    def __init__(
        self,
        config: Config,
        over: str,
        tolerance: float,
        bounds: tuple[Number | None, Number | None],
        on_probe: Callable[[Probe], None] | None,
        known: Sequence[Probe] = (),
        step_times: float = 1.0,
        kept: Kept = NOTHING_KEPT,
    ) -> None:
        self.config, self.over, self.tolerance, self.step_times = config, over, tolerance, step_times
        self.low, self.high = bounds
        self.is_load = over.rpartition(".")[2] in _LOADS
        self.whole = isinstance(number_at(config, over), int)
        above = over.rpartition(".")[0]
        self.within_mapping = bool(above) and isinstance(value_at(config, above), Mapping)  # it has no ranges
        self.probes: dict[tuple[Number, int], Probe] = {}
        self.backlogs: dict[Number, bool] = {}
        self.harder_up = True
        self.on_probe, self.kept = on_probe, kept
        self.known = {(each.value, each.seed): each for each in known if each.step_times == step_times}
        self.near = False  # the answer is near the value from which the search begins
        self.notes: list[str] = []

    def with_step_times(self, factor: float, known: Sequence[Probe] = ()) -> Search:
        """Return the search with other step times, which begins near the answer of this one."""
        bounds = (self.low, self.high)
        other = Search(
            self.config, self.over, self.tolerance, bounds, self.on_probe, known, factor, self.kept
        )
        other.harder_up, other.near = self.harder_up, True
        return other

    # One simulation

    def met(self, value: Number, seed: int) -> bool:
        """Return whether ``value`` meets the SLO."""
        probe = self.probes.get((value, seed))
        if probe is None:
            probe = self.known.get((value, seed)) or self._simulate(value, seed)
            self.probes[value, seed] = probe
            if self.on_probe is not None:
                self.on_probe(probe)
        return probe.verdict.met

    def _simulate(self, value: Number, seed: int) -> Probe:
        from hermes_flow.compiler.compile import compile

        config = self._config(value, seed)

        def judged() -> Verdict:
            return judge(with_step_times(compile(config), self.step_times))

        try:
            verdict = self.kept.verdict((digest_of(config), self.step_times), judged)
        except CompileError as error:
            if value == number_at(self.config, self.over):
                raise
            cannot = Verdict(False, None, (CANNOT_RUN,))
            return Probe(value, seed, cannot, error.problems[0], self.step_times)
        return Probe(value, seed, verdict, step_times=self.step_times)

    def _config(self, value: Number, seed: int) -> Config:
        config = with_value(self.config, self.over, value)
        shift = seed - config.seed
        workload = replace(config.workload, seed=config.workload.seed + shift)
        return replace(config, seed=seed, workload=workload)

    # The bracket

    def run(self, seed: int, start: Number) -> Number | None:
        """Return the hardest value that meets the SLO; None where none does within the bounds."""
        bracket = self._bracket(seed, self._rounded(start))
        return None if bracket is None else self._bisect(*bracket, seed)

    def checked(self, value: Number, seed: int) -> Number:
        """Return the answer after values on both sides of it were tried, for verdicts that are not monotone.

        Bisection alone sees no verdict that alternates. An easier value that misses the SLO gives a smaller answer;
        a harder one that meets it changes nothing, and is seen in the probes.
        """
        for _ in range(_CORRECTIONS):
            around = (1 + 2 * self.tolerance, *(_FAR if self._grows(value, seed) else ()))
            easier = self._untried(value, not self.harder_up, around, seed)
            missed = [other for other in easier if self._misses(other, seed)]
            if not missed:
                break
            value = self._before(value, missed, seed)
        sign = 1 if self.harder_up else -1
        beyond = [other for other in self._of(seed, met=False) if sign * other > sign * value]
        if beyond:
            hard = min(beyond, key=lambda other: sign * other)
            for harder in self._untried(hard, self.harder_up, around, seed):
                self.met(harder, seed)
        return value

    def _untried(self, value: Number, upward: bool, factors: Sequence[float], seed: int) -> list[Number]:
        """Return the values at some distances from ``value``, but those near which one has been tried."""
        steps = [self._step(value, upward, factor) for factor in factors]
        tried = [other for other, own in self.probes if own == seed and other != value]
        near = 1 + 2 * self.tolerance
        return [
            step
            for step in steps
            if step is not None and not any(1 / near <= other / step <= near for other in tried)
        ]

    def _misses(self, value: Number, seed: int) -> bool:
        """Return whether a value that can run misses the SLO."""
        return not self.met(value, seed) and self.probes[value, seed].verdict.can_run

    def _of(self, seed: int, *, met: bool) -> list[Number]:
        """Return the values that meet the SLO with a seed, or those that miss it."""
        return [
            value for (value, own), probe in self.probes.items() if own == seed and probe.verdict.met == met
        ]

    def _before(self, value: Number, missed: Sequence[Number], seed: int) -> Number:
        """Return the hardest value that meets the SLO before the easiest of those that miss it."""
        sign = 1 if self.harder_up else -1
        hard = min(missed, key=lambda other: sign * other)
        met = [other for other in self._of(seed, met=True) if sign * other < sign * hard]
        if met:
            return self._bisect(max(met, key=lambda other: sign * other), hard, seed)
        bracket = self._bracket_one_way(seed, hard, meets=False)
        return value if bracket is None else self._bisect(*bracket, seed)

    def _bisect(self, easy: Number, hard: Number | None, seed: int) -> Number:
        """Return the hardest value that meets the SLO between one that does and one that does not."""
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
        if not self.is_load and not self.near and len({value for value, _ in self.probes}) == 1:
            return self._bracket_both_ways(seed, start, meets)
        return self._bracket_one_way(seed, start, meets)

    def _bracket_one_way(self, seed: int, start: Number, meets: bool) -> tuple[Number, Number | None] | None:
        upward = meets == self.harder_up
        value, near, tried = start, self.near or len(self.probes) > 1, [start]
        for doubling in range(_MOST_DOUBLINGS if upward else _MOST_HALVINGS):
            factor = 1.0 + 4 * self.tolerance if near and not doubling else 2.0
            following = self._step(value, upward, factor)
            if following is None:
                break
            if self.met(following, seed) != meets:
                return (value, following) if meets else (following, value)
            value = following
            tried.append(value)
            if meets and self.is_load and len(tried) > _BEYOND and self._grows(tried[-_BEYOND], seed):
                break  # every request arrives long before the first ones are done
        if meets and following is not None:
            self.notes.append(f"the SLO is still met at {value:g}, where the search ended")
        return (value, None) if meets else None

    def _grows(self, value: Number, seed: int) -> bool:
        """Return whether the backlog of a simulated value still grows at the last arrival."""
        return self.probes[value, seed].verdict.sustained is False

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
        if meets and self._most_clients() is not None and "autoscale" not in self.over:  # more are not harder
            fewest = min(value for value, _ in self.probes)
            self.harder_up = False
            self.notes.append(f"the SLO is met with the fewest clients that were tried, {fewest:g}")
            return fewest, None
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
        while self.within_mapping and self._refused(moved):
            moved = (
                (value + moved) // 2 if self.whole else value
            )  # the last value that is allowed lies between
            if moved == value:
                return None
        return moved

    def _refused(self, value: Number) -> bool:
        """Return whether ``value`` itself is refused, as by a bound that another key sets."""
        from hermes_flow.compiler.compile import compile

        try:
            compile(with_value(self.config, self.over, value))
        except ConfigError as error:
            problems: Sequence[str] = (str(error),)
        except CompileError as error:
            problems = error.problems
        else:
            return False
        return any(problem.startswith(f"{self.over}: ") for problem in problems)

    def _most_clients(self) -> int | None:
        """Return the requests of a run, where clients are counted: more clients than requests have no work."""
        ends = (".count", ".autoscale.min", ".autoscale.max")
        counted = self.over.startswith("cluster.pools.") and self.over.endswith(ends)
        if not counted and self.over != "cluster.copies":
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
        return self._rounded(math.sqrt(easy * hard))

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
            config = self._config(value, self.config.seed)
            of = ("backlog", digest_of(config))
            self.backlogs[value] = self.kept.result(of, lambda: judge_backlog(compile(config)))
        return self.backlogs[value]
