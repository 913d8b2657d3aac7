"""``hermes-flow plan`` finds the cheapest deployment that meets the SLO."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hermes_flow.config.quantities import Count, CountOrZero, RatePerSecond, Seconds, StepTokens
from hermes_flow.config.schema import Config, Hardware
from hermes_flow.errors import ConfigError
from hermes_flow.planning.plan import LAYOUTS, Plan
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
        """Plan, write ``plan.parquet`` and ``summary.json``, and return the text to print."""
        from hermes_flow.metrics.files import write_parquet, write_text
        from hermes_flow.planning.day import plan_day
        from hermes_flow.report.plan_text import day_text, plan_text

        day = plan_day(config, self.hours, self._plan) if self.hours else None
        found = self._plan(config) if day is None else day.peak
        write_parquet(found.designs, folder / "plan.parquet")
        best: dict[str, Any] = {} if found.best is None else found.best.summary or {}
        given = _given()
        summary = {**best, "plan": {**found.summary(), "given": given}}
        if day is not None:
            write_parquet(day.frame(), folder / "day.parquet")
            summary["day"] = day.summary()
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(text + "\n", folder / "summary.json")
        if config.output.report:
            from hermes_flow.report.pages.folder import write_plan_page

            write_plan_page(folder)
        return plan_text(found, config, given) if day is None else day_text(day)

    def _plan(self, config: Config) -> Plan:
        """Return the plan of one rate."""
        from hermes_flow.planning.plan import plan
        from hermes_flow.planning.processes import cores
        from hermes_flow.report.progress import probe_counter

        with probe_counter("designs") as count:
            return plan(
                config,
                _catalog(self.hardware),
                layouts=self.layouts,  # type: ignore[arg-type]
                tensor_parallel=self.tensor_parallel,
                pipeline_parallel=self.pipeline_parallel,
                batching=self.batching,
                max_num_batched_tokens=self.max_num_batched_tokens,
                decode_hardware=_catalog(self.decode_hardware),
                most_clients=self.most_clients,
                headrooms=self.headrooms,
                error_bars=self.error_bars,
                seconds=self.seconds,
                processes=self.processes or cores(),
                on_design=count,
            )


def _given() -> list[str]:
    """Return the overrides of the running command; none outside a command."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _catalog(names: tuple[str, ...]) -> list[Hardware]:
    """Return the catalog's entries of these names, from the user's folders too."""
    from hermes_flow.config.compose import compose
    from hermes_flow.config.folders import user_folders

    search = [folder.as_uri() for folder in user_folders()]
    extra = [f"hydra.searchpath=[{','.join(search)}]"] if search else []
    return [compose([f"hardware={name}", *extra]).hardware for name in names]
