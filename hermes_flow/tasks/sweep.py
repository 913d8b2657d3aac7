"""Prints a line for each job of a multirun, and writes and prints one table at the end."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback

from hermes_flow.config.origin import shown_path
from hermes_flow.errors import CompileError, HermesFlowError, PluginError

if TYPE_CHECKING:
    from omegaconf import DictConfig

ERROR_FILE = "error.txt"


def record_failure(folder: Path, error: BaseException) -> None:
    """Write ``error`` to a job's folder for the table of the sweep, with a traceback if it is unexpected."""
    text = message_of(error)
    if isinstance(error, PluginError) or not isinstance(error, HermesFlowError):
        text += "\n\n" + "".join(traceback.format_exception(error))
    (folder / ERROR_FILE).write_text(text + "\n", encoding="utf-8")


def record_success(folder: Path) -> None:
    """Write an empty summary to the folder of a job whose verb has no figures, as a sign of success."""
    summary = folder / "summary.json"
    if not summary.exists():
        summary.write_text("{}\n", encoding="utf-8")


def finish_sweep(folder: Path, report: bool = False) -> bool:
    """Write the sweep's tables, print them, and return whether every job succeeded.

    ``report`` writes ``sweep.html``, too.
    """
    from hermes_flow.metrics.sweep import write_sweep
    from hermes_flow.report.sweep_table import sweep_table

    frame = write_sweep(folder)
    print(sweep_table(frame))
    if report:
        from hermes_flow.report.pages.folder import write_sweep_page

        write_sweep_page(frame, folder)
    written = "sweep.parquet, sweep.html" if report else "sweep.parquet"
    print(f"\nWritten to {shown_path(folder)}: {written} and the jobs")
    return "failed" not in frame["status"].to_list()


def message_of(error: BaseException) -> str:
    """Return the message of ``error`` for users, without a list if it has a single problem."""
    if isinstance(error, CompileError) and len(error.problems) == 1:
        return error.problems[0]
    return str(error) if isinstance(error, HermesFlowError) else f"{type(error).__name__}: {error}"


def job_line(number: int, overrides: Sequence[str], error: BaseException | None = None) -> str:
    """Return the line to print when a job of a sweep ends."""
    outcome = "done"
    if error is not None:
        problems: Sequence[str] = message_of(error).splitlines()[:1]
        if isinstance(error, CompileError):
            problems = error.problems
        elif isinstance(error, PluginError):
            problems = [f"{error.what} failed: {error.said} ({error.place})"]
        outcome = f"failed: {problems[0]}" + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else "")
    return f"job {number}: {' '.join(overrides) or 'no overrides'}: {outcome}"


@contextmanager
def quick_validation() -> Iterator[None]:
    """Let Hydra validate the common part of a sweep's jobs once, instead of each job.

    Hydra composes every job before the first one starts, to find mistakes early, and again when it starts.
    Whether a job composes depends on the choices from config groups and on the keys it sets, not on values.
    """
    from hydra.plugins.sweeper import Sweeper

    validate_all = Sweeper.validate_batch_is_legal

    def validate(self: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        assert self.hydra_context is not None
        groups = self.hydra_context.config_loader.get_group_options
        distinct: dict[tuple[str, ...], Sequence[str]] = {}
        known: dict[str, bool] = {}
        for overrides in batch:
            shape = []
            for override in overrides:
                key = override.split("=", 1)[0]
                if key not in known:
                    known[key] = bool(groups(key.lstrip("+~").split("@")[0]))
                shape.append(override if known[key] else key)
            distinct.setdefault(tuple(shape), overrides)
        validate_all(self, list(distinct.values()))

    Sweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate_all  # type: ignore[method-assign]


class SweepCallback(Callback):
    """Hydra's hook at the end of a multirun."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Aggregate the jobs; leave with status 1 if one of them failed, or there were none."""
        folder = Path(config.hydra.sweep.dir)
        if not (folder / "0").exists():
            sys.exit(
                "hermes-flow: the sweep has no jobs; a glob(…) among its overrides matches no name of its group"
            )
        try:
            succeeded = finish_sweep(folder, bool(config.output.report))
        except HermesFlowError as error:  # Hydra would make a warning of it, and a success of the sweep
            sys.exit(f"hermes-flow: {error}")
        if not succeeded:
            sys.exit(1)
