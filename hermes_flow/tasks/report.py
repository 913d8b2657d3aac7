"""``hermes-flow report [DIR]`` writes the page of a finished run, sweep or plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hermes_flow.config.schema import Config
from hermes_flow.tasks.verb import verbs


@verbs.register("report")
@dataclass(frozen=True, slots=True)
class ReportTask:
    """Writes ``report.html``, ``sweep.html`` or ``plan.html`` into ``folder``."""

    elsewhere: ClassVar[bool] = True

    folder: str | None = None
    """The folder of a run, a sweep or a plan; null takes the newest one below ``outputs``."""
    outputs: str = "outputs"
    """The folder below which the newest result is looked for."""

    def run(self, config: Config, folder: Path) -> str:
        """Write the page, and return where it is."""
        from hermes_flow.config.origin import shown_path
        from hermes_flow.report.pages.folder import SWEEP_PAGE, newest_result, write_report

        place = newest_result(Path(self.outputs)) if self.folder is None else Path(self.folder).expanduser()
        path = write_report(place)
        text = f"Written to {shown_path(path)}"
        if path.name == SWEEP_PAGE:
            import polars as pl

            from hermes_flow.report.sweep_table import sweep_table

            return f"{sweep_table(pl.read_parquet(place / 'sweep.parquet'))}\n\n{text}"
        return text
