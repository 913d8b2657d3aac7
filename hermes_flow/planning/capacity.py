"""Searches the capacity of a design: the highest value of a number at which the SLO is met.

The search brackets the number by doubling and halving, then bisects. Every probe is a whole simulation with the same
random streams, which ends early only when its verdict is certain.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hermes_flow.config.schema import Config, TraceWorkload
from hermes_flow.errors import ConfigError
from hermes_flow.metrics.error_bars.bars import StepTimes, step_times
from hermes_flow.planning.kept import NOTHING_KEPT, Kept
from hermes_flow.planning.keys import number_at, with_value
from hermes_flow.planning.probes import Number, Probe, probes_frame
from hermes_flow.planning.search import Search

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class Capacity:
    """The answer of a capacity search.

    ``value`` is the last value of ``over`` at which every bound of the SLO is met, None where no value was found.
    ``sustained`` is the last value at which the number of requests in flight does not grow until the last arrival;
    None where it grows at every value that was tried. ``seed_interval`` holds the lowest and the highest ``value``
    over all seeds. ``interval`` is wider: it also holds the answers with the shortest and the longest step times of
    the error bar (``step_times``; None where there is none). An end of it is None where no value meets the SLO then.
    ``direction`` is "highest" where smaller values are easier, "lowest" where larger ones are. ``limiting`` names
    the bounds that fail next to ``value``. ``monotone`` is False where a harder value met the SLO while an easier
    one did not. ``probes`` are all simulations in order.
    """

    over: str
    value: Number | None
    sustained: Number | None
    interval: tuple[Number | None, Number | None] | None
    seed_interval: tuple[Number, Number] | None
    step_times: StepTimes | None
    direction: str
    limiting: tuple[str, ...]
    monotone: bool
    probes: tuple[Probe, ...]
    notes: tuple[str, ...] = ()

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``capacity`` in the summary."""
        low, high = self.interval or (None, None)
        seeds_low, seeds_high = self.seed_interval or (None, None)
        return {
            "over": self.over,
            "value": self.value,
            "sustained": self.sustained,
            "low": low,
            "high": high,
            "seeds_low": seeds_low,
            "seeds_high": seeds_high,
            "step_times": None if self.step_times is None else self.step_times.as_dict(),
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
    if any(own.rate_per_s is not None for own in workload.classes.values()):
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
    error_bar: bool = True,
    kept: Kept = NOTHING_KEPT,
) -> Capacity:
    """Return how far ``over`` can go while ``config`` meets its SLO.

    ``over`` is a dotted key with a number above 0 (None: the load, see ``load_key``). For a load the highest value
    is looked for; for any other key the highest or the lowest, whichever the verdicts show. Whole numbers stay
    whole. The search ends when the bracket is narrower than ``tolerance`` (a share of the value), or than 1.
    ``low`` and ``high`` bound the search. ``seeds`` searches are made, the first with the config's own seed, for
    ``interval``. ``on_probe`` is called after each probe. ``known`` are probes of an earlier search of the same
    config, which are not simulated again. With ``error_bar`` the search is made again with the shortest and the
    longest step times of the error bar of TPOT at the answer, where it has one. Every verdict is added to ``kept``,
    and what that has already is not simulated again.

    Raises ConfigError where the SLO has no bounds, the key is no number, or the verdict does not depend on it, and
    CompileError where the config as it is cannot run.
    """
    over = over or load_key(config)
    start = number_at(config, over)
    _check_settings(config, seeds, tolerance, low, high)
    _check_count(config, over)
    search = Search(config, over, tolerance, (low, high), on_probe, known, kept=kept)
    first = search.run(config.seed, start)
    if first is None:
        return _nothing_found(search)
    first = search.checked(first, config.seed)
    ends = [first]
    draws = config.workload.kind != "trace"
    for seed in range(config.seed + 1, config.seed + seeds) if draws else ():
        found = search.run(seed, first)
        if found is not None:
            ends.append(found)
    if len(ends) < seeds and draws:
        search.notes.append("some seeds meet the SLO at no value; the interval leaves them out")
    probes = list(search.probes.values())
    sustained = search.sustained(first)
    bar, edges = None, dict[float, Number | None]()
    if error_bar:
        bar = _step_times(with_value(config, over, first))
        for factor in () if bar is None else (bar.low, bar.high):
            other = search.with_step_times(factor, known)
            edges[factor] = other.run(config.seed, _moved(first, factor, search))
            probes += other.probes.values()
    return _answer(search, first, sustained, sorted(ends), bar, edges, probes)


def _check_count(config: Config, over: str) -> None:
    """Refuse a search over the number of clients of a pool that an autoscaler changes."""
    for name, pool in config.cluster.pools.items():
        if over == f"cluster.pools.{name}.count" and getattr(pool, "autoscale", None) is not None:
            raise ConfigError(
                "task.over",
                f"cluster.pools.{name}.autoscale changes the number of clients while the system runs; set it to null",
            )


def _check_settings(
    config: Config, seeds: int, tolerance: float, low: Number | None, high: Number | None
) -> None:
    if not config.bounded:
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


def _step_times(config: Config) -> StepTimes | None:
    """Return by how much the step times of a configuration may be wrong; None where that is not known."""
    from hermes_flow.compiler.compile import compile
    from hermes_flow.simulation import simulate

    return step_times(simulate(compile(config)).summary)


def _moved(value: Number, factor: float, search: Search) -> Number:
    """Return where the search with other step times begins: a load shrinks as steps get longer, and clients grow."""
    if search.over.endswith(".concurrency") or not (search.is_load or search.over.endswith(".count")):
        return value
    moved = value / factor if search.is_load else value * factor
    return max(1, round(moved)) if search.whole else moved


def _answer(
    search: Search,
    value: Number,
    sustained: Number | None,
    ends: Sequence[Number],
    bar: StepTimes | None,
    edges: Mapping[float, Number | None],
    probes: Sequence[Probe],
) -> Capacity:
    """Return the answer; ``edges`` are the values with the step times at the ends of the error bar."""
    own = [probe for (_, seed), probe in search.probes.items() if seed == search.config.seed]
    met = [probe.value for probe in own if probe.verdict.met]
    failed = [probe for probe in own if not probe.verdict.met]
    sign = 1 if search.harder_up else -1
    beyond = [probe for probe in failed if sign * probe.value > sign * value]
    nearest = min(beyond, key=lambda probe: sign * probe.value, default=None)
    hardest = max(met, key=lambda own: sign * own, default=value)
    runs = [probe.value for probe in beyond if probe.verdict.can_run and sign * probe.value < sign * hardest]
    if runs:
        missed = min(runs, key=lambda own: sign * own)
        search.notes.append(
            f"the verdicts are not monotone: the SLO is missed at {missed:g} and met at {hardest:g}; the "
            "answer is the last value before the first one that was seen to miss it"
        )
    if sustained is not None and sign * sustained < sign * value:
        search.notes.append(
            f"the SLO is met at {value:g} only because the run ends: the backlog still grows there at the last "
            f"arrival, and stays bounded {'up to' if search.harder_up else 'from'} {sustained:g}"
            f"{'' if search.harder_up else ' on'}"
        )
    return Capacity(
        over=search.over,
        value=value,
        sustained=sustained,
        interval=_interval(ends, edges, search.harder_up),
        seed_interval=(ends[0], ends[-1]),
        step_times=bar,
        direction="highest" if search.harder_up else "lowest",
        limiting=() if nearest is None else nearest.verdict.failing,
        monotone=not runs,
        probes=tuple(probes),
        notes=tuple(search.notes),
    )


def _interval(
    ends: Sequence[Number], edges: Mapping[float, Number | None], harder_up: bool
) -> tuple[Number | None, Number | None]:
    """Return the lowest and the highest value of all searches; None at the end where one found no value."""
    found = [*ends, *(value for value in edges.values() if value is not None)]
    low, high = min(found), max(found)
    if None in edges.values():
        return (None, high) if harder_up else (low, None)
    return low, high


def _nothing_found(search: Search) -> Capacity:
    """Return the answer where no value meets the SLO."""
    failing = {name for probe in search.probes.values() for name in probe.verdict.failing}
    return Capacity(
        over=search.over,
        value=None,
        sustained=None,
        interval=None,
        seed_interval=None,
        step_times=None,
        direction="highest" if search.harder_up else "lowest",
        limiting=tuple(sorted(failing)),
        monotone=True,
        probes=tuple(search.probes.values()),
        notes=(f"no value of {search.over} that was tried meets the SLO",),
    )
