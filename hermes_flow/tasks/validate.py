"""``hermes-flow validate`` replays measured runs (docs/validate.md) or checks results (docs/invariants.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.schema import Config
from hermes_flow.errors import CheckError, CompileError, ConfigError, HermesFlowError
from hermes_flow.tasks.verb import verbs

if TYPE_CHECKING:
    from hermes_flow.validation.compare import Compared
    from hermes_flow.validation.description import RunDescription


@verbs.register("validate")
@dataclass(frozen=True, slots=True)
class ValidateTask:
    """Compares the simulation with measured runs, or checks that results do not contradict themselves."""

    runs: tuple[str, ...] | str | None = None
    """Descriptions of measured runs, folders of such, or tables of measured requests."""
    invariants: tuple[str, ...] | str | None = None
    """Folders of runs or of sweeps whose files are checked, in place of ``runs``."""

    def run(self, config: Config, folder: Path) -> str:
        """Do what was asked for, write what was found, and return it as text.

        Raises ConfigError where both were asked for, or nothing; HermesFlowError where runs fail or an invariant
        does not hold.
        """
        if self.runs is not None and self.invariants is not None:
            raise ConfigError(
                "task.invariants",
                "it does not go with task.runs: one checks results, the other replays measured runs; give one",
            )
        if self.invariants is not None:
            return _check_invariants(self.invariants, folder)
        return self._replay(folder)

    def _replay(self, folder: Path) -> str:
        """Replay every run, write the errors, return them as text; the command's overrides hold for all runs.

        Runs that fail are left out. Raises HermesFlowError naming them, after what the others gave was printed.
        """
        from hermes_flow.report.validation_table import validation_table
        from hermes_flow.validation.compare import compare, mean_sizes
        from hermes_flow.validation.description import find_descriptions, read_description

        if not self.runs:
            raise ConfigError(
                "task.runs",
                "no runs; expected run descriptions, as in task.runs=[my_run.yaml], "
                "or task.invariants=DIR to check the results in a folder",
            )
        given = _command()
        described: dict[Path, RunDescription] = {}
        done: list[Compared] = []
        failures: dict[str, str] = {}
        for path in find_descriptions([self.runs] if isinstance(self.runs, str) else self.runs):
            try:
                described[path] = read_description(path)
            except HermesFlowError as error:
                failures[str(path)] = _message(error)
        described = _told_apart(described)
        _require_names({path: run.name for path, run in described.items()})
        for path, run in described.items():
            try:
                done.append(compare(run, given))
            except HermesFlowError as error:
                failures[str(path)] = _message(error)
        if not done:
            raise HermesFlowError(_failed(failures, len(failures)))
        _write(done, failures, folder)
        text = validation_table(done, mean_sizes(done))
        if failures:
            print(f"{text}\n\nWritten to {folder}\n")
            raise CheckError(_failed(failures, len(done) + len(failures)))
        return text


def _check_invariants(given: tuple[str, ...] | str, folder: Path) -> str:
    """Check the results in the folders, write ``invariants.parquet``, and return the text to print.

    Raises HermesFlowError where an invariant does not hold, after a line for each violation was printed.
    """
    from hermes_flow.metrics.files import write_parquet, write_text
    from hermes_flow.report.invariants_text import checked_text, failure_text, violations_text
    from hermes_flow.validation.invariants.check import check_invariants, frame

    folders = [given] if isinstance(given, str) else list(given)
    if not folders:
        raise ConfigError(
            "task.invariants", "no folders; expected those of runs or sweeps, as outputs/my_run"
        )
    runs = check_invariants(folders)
    write_parquet(frame(runs), folder / "invariants.parquet")
    text = checked_text(runs)
    violations = violations_text(runs)
    write_text(f"{violations}\n{text}\n" if violations else f"{text}\n", folder / "invariants.txt")
    if violations:
        print(f"{violations}\n\n{text}\n\nWritten to {folder}\n")
        raise CheckError(failure_text(runs))
    return text


def _command() -> list[str]:
    """Return the overrides of the command line that configure a run, and the user's config folders."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    from hermes_flow.config.folders import user_folders

    if not HydraConfig.initialized():
        return []
    hydra = HydraConfig.get()
    texts: Any = OmegaConf.to_container(OmegaConf.select(hydra, "overrides.task"), resolve=False)  # type: ignore[arg-type]
    own = [text for text in texts if text.partition("=")[0].lstrip("+~").split(".")[0] != "task"]
    folders = [folder.as_uri() for folder in user_folders()]
    return [*own, f"hydra.searchpath=[{','.join(folders)}]"] if folders else own


def _message(error: HermesFlowError) -> str:
    single = isinstance(error, CompileError) and len(error.problems) == 1
    return error.problems[0] if single and isinstance(error, CompileError) else str(error)


def _failed(failures: dict[str, str], of: int) -> str:
    lines = [
        problem if problem.startswith(path) else f"{path}: {problem}" for path, problem in failures.items()
    ]
    if of == 1:
        return lines[0]
    return "\n".join(
        [f"{len(failures)} of {of} runs could not be validated:", *(f"  - {line}" for line in lines)]
    )


def _told_apart(described: dict[Path, RunDescription]) -> dict[Path, RunDescription]:
    """Return the runs with the folder in the name of logs that are called alike, as benchmarks call all of theirs."""
    from hermes_flow.workload.records.open_table import is_records

    names = [run.name for run in described.values()]
    return {
        path: replace(run, name=f"{path.parent.name}/{run.name}")
        if names.count(run.name) > 1 and is_records(str(path))
        else run
        for path, run in described.items()
    }


def _require_names(names: dict[Path, str]) -> None:
    for name in names.values():
        same = [str(path) for path, other in names.items() if other == name]
        if len(same) > 1:
            raise HermesFlowError(
                f"{name!r} is the name of {len(same)} runs, {' and '.join(same)}; "
                "expected a name of its own for each: name in a run description, or the file's own name"
            )


def _write(done: list[Compared], failures: dict[str, str], folder: Path) -> None:
    from hermes_flow.metrics.files import replace_file, write_parquet, write_text
    from hermes_flow.report.pages.validation import validation_page
    from hermes_flow.validation.compare import frame, mean_sizes
    from hermes_flow.validation.description import SIMULATOR

    table = frame([row for run in done for row in run.rows])
    write_parquet(table, folder / "validation.parquet")
    replace_file(folder / "validation.csv", table.write_csv)
    sizes = mean_sizes(done)
    ours = {
        f"{metric}_{statistic}": size
        for (simulator, metric, statistic), size in sizes.items()
        if simulator == SIMULATOR
    }
    summary = {"validation": {"runs": len(done), "failed": failures, "mean_size_percent": ours}}
    text = json.dumps(summary, indent=2, allow_nan=False, ensure_ascii=False)
    write_text(text + "\n", folder / "summary.json")
    write_text(validation_page(done, sizes, failures), folder / "validation.html")
