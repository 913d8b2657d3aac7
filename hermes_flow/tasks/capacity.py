"""``hermes-flow capacity`` finds the highest load, or the smallest design, that meets the SLO."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.config.quantities import Count, ShareBelowOne, Size
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.runs.stopping import with_answer
from hermes_flow.tasks.verb import verbs

if TYPE_CHECKING:
    from hermes_flow.planning.probes import Probe


@verbs.register("capacity")
@dataclass(frozen=True, slots=True)
class CapacityTask:
    """Searches ``over`` by whole simulations; writes every probe and the summary of the run at the answer."""

    over: str | None = None
    """The key that is searched; null searches the load."""
    seeds: Count = 3
    """The number of searches with seeds of their own, for the interval."""
    tolerance: ShareBelowOne = 0.02
    """The search ends when its bracket is narrower than this share of the value."""
    low: Size | None = None
    """No value below this is tried."""
    high: Size | None = None
    """No value above this is tried."""
    error_bar: bool = True
    """True searches again with the step times at both ends of the error bar of TPOT."""
    resume: str | None = None
    """The folder of an earlier search of the same configuration, whose probes are not simulated again."""

    def run(self, config: Config, folder: Path) -> str:
        """Search, write ``capacity.parquet`` and ``summary.json``, and return the text to print."""
        from hermes_flow.compiler.compile import compile
        from hermes_flow.metrics.files import write_parquet, write_text
        from hermes_flow.planning.capacity import capacity, load_key
        from hermes_flow.planning.keys import with_value
        from hermes_flow.planning.probes import probes_frame
        from hermes_flow.report.capacity_text import capacity_text, so_far_text
        from hermes_flow.report.progress import probe_counter
        from hermes_flow.simulation import simulate
        from hermes_flow.tasks.earlier_search import keep_inputs

        known = self._known(config)
        keep_inputs(folder)
        kept: list[Probe] = []
        with probe_counter() as count:

            def keep(probe: Probe) -> None:
                kept.append(probe)
                write_parquet(probes_frame(kept), folder / "capacity.parquet")
                if count is not None:
                    count(probe)

            try:
                found = capacity(
                    config,
                    self.over,
                    seeds=self.seeds,
                    tolerance=self.tolerance,
                    low=self.low,
                    high=self.high,
                    on_probe=keep,
                    known=known,
                    error_bar=self.error_bar,
                )
            except KeyboardInterrupt as stopped:
                text = so_far_text(self.over or load_key(config), config, kept)
                raise with_answer(stopped, text) from None
        probes = found.frame()
        write_parquet(probes, folder / "capacity.parquet")
        at = config if found.value is None else with_value(config, found.over, found.value)
        program = compile(at)
        result = simulate(program)
        summary = {**result.summary, "capacity": found.summary()}
        text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(text + "\n", folder / "summary.json")
        write_text(str(program).rstrip("\n") + "\n", folder / "program.txt")
        if config.output.report:
            from hermes_flow.report.pages.folder import write_result_page

            write_result_page(result, folder, summary=summary, capacity=probes)
        return capacity_text(found, summary)

    def _known(self, config: Config) -> list[Probe]:
        """Return the probes of the folder to resume; raises ConfigError if its configuration is another one."""
        if self.resume is None:
            return []
        from hermes_flow.planning.capacity import load_key
        from hermes_flow.planning.keys import number_at
        from hermes_flow.planning.probes import read_probes
        from hermes_flow.tasks.earlier_search import earlier_config

        other = earlier_config(self.resume, config)
        over = self.over or load_key(config)
        searched = other.task.get("over") or load_key(other)
        if searched != over:
            raise ConfigError(
                "task.resume", f"{self.resume} has a search over {searched}; expected one over {over}"
            )
        probes = Path(self.resume).expanduser() / "capacity.parquet"
        return read_probes(probes, isinstance(number_at(config, over), int)) if probes.is_file() else []
