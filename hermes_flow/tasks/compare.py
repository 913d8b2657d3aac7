"""``hermes-flow compare A B …`` shows in what runs or sweeps differ, and where the difference comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.tasks.verb import verbs


@verbs.register("compare")
@dataclass(frozen=True, slots=True)
class CompareTask:
    """Compares the runs in ``runs``, writes the tables and the page, and prints the main differences."""

    runs: tuple[str, ...] = ()
    """The folders of runs and sweeps; the first one is what the others are compared with."""
    rank: str | None = None
    """The figure that ranks them, such as ttft_s.p99; null ranks only where there are many."""
    pareto: tuple[str, ...] = ()
    """Two or three figures whose Pareto front is shown."""

    def run(self, config: Config, folder: Path) -> str:
        """Compare, write ``compare.parquet``, ``compare.html`` and ``summary.json``, and return the text to print."""
        from hermes_flow.metrics.files import write_parquet, write_text
        from hermes_flow.planning.compare import compare
        from hermes_flow.report.compare_text import compare_text
        from hermes_flow.report.pages.comparison import write_comparison_page

        if not self.runs:
            raise ConfigError(
                "task.runs",
                "no folders; expected at least two, as in hermes-flow compare outputs/a outputs/b",
            )
        found = compare(self.runs)
        with _asked_by("task.rank"):
            if self.rank is not None:
                found.ranked(self.rank)
        with _asked_by("task.pareto"):
            if self.pareto:
                found.pareto(self.pareto)
        text = compare_text(found, self.rank, self.pareto)
        write_parquet(found.figures, folder / "compare.parquet")
        summary = {
            "compare": {
                "runs": found.labels,
                "settings": found.settings.to_dicts(),
                "why": found.why.to_dicts(),
                "failed": dict(found.failed),
            }
        }
        written = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
        write_text(written + "\n", folder / "summary.json")
        write_comparison_page(found, folder, self.rank, self.pareto)
        return text


@contextmanager
def _asked_by(key: str) -> Iterator[None]:
    """Let an error about a figure name the key of the task that asks for it."""
    try:
        yield
    except ConfigError as error:
        figure = "" if error.key == key.rpartition(".")[2] else f"{error.key} "
        raise ConfigError(key, f"{figure}{error.problem}") from error
