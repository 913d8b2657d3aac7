"""Checks every invariant on the results below some folders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.errors import HermesFlowError
from hermes_flow.validation.invariants import (
    clients,
    contents,
    energy_and_cost,
    figures,
    fleets,
    links,
    objectives,
    phases,
    requests,
    stages,
    steps,
)
from hermes_flow.validation.invariants.invariant import Finding, Invariant, Violation
from hermes_flow.validation.invariants.run_files import TABLES, RunFiles, read_run

if TYPE_CHECKING:
    import polars as pl

_FAMILIES = (
    contents,
    requests,
    stages,
    clients,
    links,
    steps,
    figures,
    objectives,
    energy_and_cost,
    phases,
    fleets,
)
_BASIC = 2  # invariants up to this number say whether the others can be checked at all

INVARIANTS: tuple[Invariant, ...] = tuple(
    sorted((own for family in _FAMILIES for own in family.INVARIANTS), key=lambda own: own.number)
)
"""All invariants, by number."""


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """What was found in the folder of one run.

    ``checked`` are the numbers of the invariants that were checked; ``skipped`` names for the others the files that
    they need and the folder does not have.
    """

    folder: Path
    violations: tuple[Violation, ...]
    checked: tuple[int, ...]
    skipped: dict[int, tuple[str, ...]]


def check_invariants(folders: str | Path | Iterable[str | Path]) -> list[CheckedRun]:
    """Check the results in ``folders``: each the folder of a run, or one with such folders below it (a sweep's).

    Raises HermesFlowError where a folder does not exist or holds no result of a run.
    """
    given = [folders] if isinstance(folders, str | Path) else list(folders)
    found = [path for folder in given for path in find_runs(Path(folder).expanduser())]
    return [check_run(path) for path in dict.fromkeys(found)]


def find_runs(folder: Path) -> list[Path]:
    """Return the folders of runs that ``folder`` is or holds, at any depth; jobs of a sweep by their number.

    Jobs that failed have no result and are left out. Raises HermesFlowError where there is no run.
    """
    if not folder.is_dir():
        what = "this is a file" if folder.exists() else "there is no such folder"
        raise HermesFlowError(f"{folder}: {what}; expected the folder of a run or of a sweep")
    if _is_run(folder):
        return [folder]
    results = [path for name in _marks() for path in folder.rglob(name)]
    found = {path.parent for path in results if _is_run(path.parent)}
    if not found:
        raise HermesFlowError(
            f"{folder}: holds no result of a run; expected summary.json or tables, here or in folders below"
        )
    return sorted(found, key=lambda path: [_order(part) for part in path.relative_to(folder).parts])


def check_run(folder: Path) -> CheckedRun:
    """Check every invariant whose files are in ``folder``, and name those that could not be checked.

    Where a file cannot be read or columns are missing or of another type, only that is reported.
    """
    run = read_run(folder)
    violations: list[Violation] = []
    checked: list[int] = []
    skipped: dict[int, tuple[str, ...]] = {}
    for own in INVARIANTS:
        if own.number > _BASIC and violations and violations[0].invariant.number <= _BASIC:
            break
        missing = tuple(file for file in own.needs if not run.has(file))
        if missing:
            skipped[own.number] = missing
            continue
        checked.append(own.number)
        violations += [Violation(own, folder, finding) for finding in _findings(own, run)]
    return CheckedRun(folder, tuple(violations), tuple(checked), skipped)


def frame(runs: Iterable[CheckedRun]) -> pl.DataFrame:
    """Return the violations as a table: run, invariant (its number), name, file, rows (from 0), text."""
    import polars as pl

    schema = {"run": pl.String, "invariant": pl.Int64, "name": pl.String, "file": pl.String}
    rows = [
        (
            *(str(run.folder), own.invariant.number, own.invariant.name, own.finding.file),
            *(list(own.finding.rows), own.finding.text),
        )
        for run in runs
        for own in run.violations
    ]
    return pl.DataFrame(rows, schema={**schema, "rows": pl.List(pl.Int64), "text": pl.String}, orient="row")


def _findings(own: Invariant, run: RunFiles) -> Iterator[Finding]:
    from polars.exceptions import PolarsError

    try:
        yield from own.check(run)
    except (TypeError, AttributeError, KeyError, ValueError, PolarsError) as error:
        # A summary, a configuration or a further column of another form than any version writes.
        needed = " and ".join(own.needs)
        problem = f"{needed} have a form that cannot be checked: {type(error).__name__}: {error}"
        yield Finding(".", problem.splitlines()[0])


def _marks() -> tuple[str, ...]:
    return ("summary.json", *(f"{name}.parquet" for name in TABLES))


def _is_run(folder: Path) -> bool:
    return any((folder / name).is_file() for name in _marks())


def _order(part: str) -> tuple[bool, int, str]:
    return (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
