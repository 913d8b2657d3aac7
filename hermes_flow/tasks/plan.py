"""``hermes-flow plan`` finds the cheapest deployment that meets the SLO."""

from __future__ import annotations

import json
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_flow.config.quantities import Count, CountOrZero, RatePerSecond, Seconds, StepTokens
from hermes_flow.config.schema import Config, Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.metrics.number_text import counted
from hermes_flow.planning.kept import Kept, copy_kept, kept_at
from hermes_flow.planning.plan import LAYOUTS, Design, Plan
from hermes_flow.runs.result_files import PLAN_FILE
from hermes_flow.runs.stopping import with_answer
from hermes_flow.tasks.verb import verbs


@verbs.register("plan")
@dataclass(frozen=True, slots=True)
class PlanTask:
    """Sizes every design that could serve the workload, and ranks those that meet the SLO by cost."""

    hardware: tuple[str, ...] = ()
    """Names of the group ``hardware``; an empty list is the hardware chosen for the whole configuration."""
    decode_hardware: tuple[str, ...] = ()
    """Names of the group ``hardware`` on which disaggregated designs decode, each with each of ``hardware``; an empty
    list is the hardware that they prefill on.
    """
    layouts: tuple[str, ...] = LAYOUTS
    """The layouts that are tried."""
    tensor_parallel: tuple[Count, ...] = (1, 2, 4, 8)
    """The numbers of devices that matrices are cut over."""
    pipeline_parallel: tuple[Count, ...] = (1,)
    """The numbers of ranks that layers are cut into."""
    batching: tuple[str, ...] = ()
    """The batching policies that are tried; an empty list is that of the pool."""
    max_num_batched_tokens: tuple[StepTokens, ...] = ()
    """The token budgets that are tried; an empty list is that of the pool."""
    most_clients: Count = 64
    """No design has more clients."""
    headrooms: CountOrZero = 3
    """For so many of the best designs it is computed how much more load they carry."""
    error_bars: CountOrZero = 5
    """So many of the best designs are sized again with the step times at both ends of their error bars."""
    seconds: Seconds | None = None
    """Nothing further is begun after this time; null tries all."""
    processes: Count | None = None
    """Designs are sized in up to so many processes at once; null is one for each core."""
    hours: tuple[RatePerSecond, ...] = ()
    """The rate of every hour of a day, each planned alone; an empty list plans the rate of the workload."""
    resume: str | None = None
    """The folder of an earlier plan of the same configuration, whose simulations are not made again."""

    def __post_init__(self) -> None:
        for name in self.layouts:
            if name not in LAYOUTS:
                raise ConfigError("layouts", f"{name!r} is unknown; expected {' or '.join(LAYOUTS)}")
        if not self.layouts or not self.tensor_parallel or not self.pipeline_parallel:
            raise ConfigError(
                "layouts", "layouts, tensor_parallel and pipeline_parallel need at least one entry"
            )
        if self.decode_hardware and "disaggregated" not in self.layouts:
            raise ConfigError(
                "decode_hardware", "only disaggregated designs decode apart; add it to task.layouts"
            )

    def run(self, config: Config, folder: Path) -> str:
        """Plan, write ``plan.parquet`` and ``summary.json``, and return the text to print.

        Every simulation is added to ``plan.jsonl`` at once. A plan that is stopped raises Stopped with its answer
        so far.
        """
        from hermes_flow.metrics.files import write_parquet, write_text
        from hermes_flow.planning.day import plan_day
        from hermes_flow.planning.plan import plan_so_far
        from hermes_flow.report.plan_text import day_text, plan_text
        from hermes_flow.tasks.earlier_search import keep_inputs

        given = _given()
        kept = self._kept(config, folder)
        keep_inputs(folder)
        planned = _Planned(self, kept)
        try:
            day = plan_day(config, self.hours, planned.at) if self.hours else None
            found = planned.at(config) if day is None else day.peak
        except KeyboardInterrupt as stopped:
            if planned.designs:
                write_parquet(plan_so_far(planned.designs).designs, folder / "plan.parquet")
            raise with_answer(stopped, planned.text(config, given)) from None
        write_parquet(found.designs, folder / "plan.parquet")
        best: dict[str, Any] = {} if found.best is None else found.best.summary or {}
        summary = {**best, "plan": {**found.summary(), "given": given}}
        if day is not None:
            write_parquet(day.frame(), folder / "day.parquet")
            summary["day"] = day.summary()
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(text + "\n", folder / "summary.json")
        if config.output.report:
            from hermes_flow.report.pages.folder import write_plan_page

            write_plan_page(folder)
        said = plan_text(found, config, given) if day is None else day_text(day)
        plans = [found] if day is None else day.plans.values()
        return said if all(each.complete for each in plans) else f"{said}\n\n{_way_on(folder)}"

    def _kept(self, config: Config, folder: Path) -> Kept:
        """Return where the simulations are kept, with those of the plan to go on from."""
        path = folder.absolute() / PLAN_FILE
        if self.resume is not None:
            from hermes_flow.tasks.earlier_search import earlier_config

            earlier_config(self.resume, config)
            earlier = Path(self.resume).expanduser() / PLAN_FILE
            if earlier.is_file():
                copy_kept(earlier, path)
        return kept_at(path)


class _Planned:
    """The plans of the rates of one command, and the designs of the rate that it is at."""

    def __init__(self, task: PlanTask, kept: Kept) -> None:
        self.task, self.kept = task, kept
        self.began = time.monotonic()
        self.designs: list[Design] = []
        self.plans: dict[float, Plan] = {}
        self.hardware = _catalog("task.hardware", task.hardware)
        self.decode_hardware = _catalog("task.decode_hardware", task.decode_hardware)

    def at(self, config: Config) -> Plan:
        """Return the plan of the rate of ``config``; the rates that are left share the time that is left."""
        from hermes_flow.planning.plan import plan
        from hermes_flow.planning.processes import cores
        from hermes_flow.report.progress import probe_counter

        task = self.task
        with probe_counter("designs") as count:

            def keep(design: Design) -> None:
                self.designs.append(design)
                if count is not None:
                    count(design)

            self.designs.clear()
            found = plan(
                config,
                self.hardware,
                layouts=task.layouts,  # type: ignore[arg-type]
                tensor_parallel=task.tensor_parallel,
                pipeline_parallel=task.pipeline_parallel,
                batching=task.batching,
                max_num_batched_tokens=task.max_num_batched_tokens,
                decode_hardware=self.decode_hardware,
                most_clients=task.most_clients,
                headrooms=task.headrooms,
                error_bars=task.error_bars,
                seconds=self._seconds(),
                processes=task.processes or cores(),
                on_design=keep,
                kept=self.kept,
            )
        if task.hours:
            self.plans[getattr(config.workload, "rate_per_s")] = found  # noqa: B009
        return found

    def text(self, config: Config, given: Sequence[str]) -> str:
        """Return the answer so far of a plan that is stopped; empty where there is none."""
        from hermes_flow.planning.day import DayPlan
        from hermes_flow.planning.plan import plan_so_far
        from hermes_flow.report.plan_text import day_text, plan_text

        if self.task.hours:
            return day_text(DayPlan(self.task.hours, self.plans)) if self.plans else ""
        if not self.designs:
            return ""
        note = f"stopped after {counted(len(self.designs), 'kind')} of designs; others may be cheaper"
        return plan_text(plan_so_far(self.designs, [note]), config, given)

    def _seconds(self) -> float | None:
        """Return the time for the next rate."""
        if self.task.seconds is None:
            return None
        left = len(set(self.task.hours)) - len(self.plans) if self.task.hours else 1
        return max(0.0, self.task.seconds - (time.monotonic() - self.began)) / max(1, left)


def _way_on(folder: Path) -> str:
    """Return how to plan what the time did not suffice for."""
    from hydra.core.hydra_config import HydraConfig

    from hermes_flow.runs.settings import resuming

    named = HydraConfig.get().overrides.hydra if HydraConfig.initialized() else []
    text = f"note: {resuming(folder, named)} goes on from here"
    return "\n".join(
        textwrap.wrap(text, 80, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
    )


def _given() -> list[str]:
    """Return the overrides of the running command; none outside a command."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _catalog(key: str, names: tuple[str, ...]) -> list[Hardware]:
    """Return the catalog's entries of these names, from the user's folders too; ``key`` is what names them."""
    from hermes_flow.config.compose import compose
    from hermes_flow.config.folders import user_folders

    search = [folder.as_uri() for folder in user_folders()]
    extra = [f"hydra.searchpath=[{','.join(search)}]"] if search else []
    found = []
    for name in names:
        try:
            found.append(compose([f"hardware={name}", *extra]).hardware)
        except ConfigError as error:
            if error.key != "hardware":
                raise
            raise ConfigError(key, error.problem) from error
    return found
