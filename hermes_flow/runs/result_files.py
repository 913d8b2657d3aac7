"""Names the files that a command writes, and moves a whole old result out of the way of a new one."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hermes_flow.errors import HermesFlowError

ERROR_FILE = "error.txt"
JOB_FILE = "job.json"
PLAN_FILE = "plan.jsonl"
INPUTS_FILE = "inputs.json"
PROBES_FILES = ("capacity.parquet", PLAN_FILE)  # of a search, which another one may go on from
JOBS_FILE = "jobs.json"
MULTIRUN_FILE = "multirun.yaml"
OVERRIDES_FILE = Path(".hydra", "overrides.yaml")

# Everything that a verb writes into the folder of its run. A new file of a verb gets a line here.
RESULT_FILES = (
    *(f"{name}.parquet" for name in ("requests", "stages", "clients", "links", "phases", "fleet", "steps")),
    *(f"{name}.parquet" for name in ("capacity", "plan", "day", "compare", "validation", "invariants")),
    PLAN_FILE,
    INPUTS_FILE,
    *(f"{name}.html" for name in ("report", "capacity", "plan", "compare", "validation")),
    *("summary.json", "program.txt", "trace.json.gz", "validation.csv", "invariants.txt", JOB_FILE),
)
_SWEEP_FILES = ("sweep.parquet", "sweep.html", MULTIRUN_FILE, JOBS_FILE)
_SETTINGS = tuple(Path(".hydra", name) for name in ("config.yaml", "hydra.yaml", OVERRIDES_FILE.name))
_ASIDE = ".replaced"


def result_in(folder: Path) -> str | None:
    """Return what ``folder`` holds, "a run" or "a sweep"; None where it holds no result."""
    if any((folder / name).exists() for name in (JOBS_FILE, "sweep.parquet")):
        return "a sweep"
    if (folder / MULTIRUN_FILE).exists() and job_folders(folder):
        return "a sweep"
    return "a run" if any((folder / name).exists() for name in RESULT_FILES) else None


def job_folders(folder: Path) -> list[Path]:
    """Return the folders of the jobs in the folder of a sweep, in the order of their names."""
    return sorted(path.parent.parent for path in folder.glob(f"*/{OVERRIDES_FILE.as_posix()}"))


def own_files(folder: Path) -> list[Path]:
    """Return the paths, relative to ``folder``, of all files of the result in it; other files are not named."""
    names = [Path(name) for name in (*RESULT_FILES, ERROR_FILE)] + list(_SETTINGS)
    kind = result_in(folder)
    if kind == "a sweep":
        names += [Path(name) for name in _SWEEP_FILES]
    found = [name for name in names if (folder / name).is_file()]
    found += [path.relative_to(folder) for path in folder.glob(".*.part")]
    if kind == "a sweep":
        for job in job_folders(folder):
            found += [job.relative_to(folder) / name for name in own_files(job)]
    return found


def remove_result(folder: Path) -> None:
    """Remove the files of the result in ``folder``, and the folders in it that are empty then."""
    for name in own_files(folder):
        (folder / name).unlink(missing_ok=True)
        _remove_empty((folder / name).parent, folder)


def remove_job_result(folder: Path) -> None:
    """Remove what an earlier try of a job left in its folder; the settings that Hydra has just written stay."""
    for name in own_files(folder):
        if name not in _SETTINGS:
            (folder / name).unlink(missing_ok=True)


def set_aside(folder: Path) -> None:
    """Move the files of the result in ``folder`` into a hidden folder inside it. Raises HermesFlowError."""
    _remove_tree(folder / _ASIDE)  # what a killed command left there
    try:
        for name in own_files(folder):
            _move(folder / name, folder / _ASIDE / name)
            _remove_empty((folder / name).parent, folder)
    except OSError as error:
        raise HermesFlowError(f"{folder}: the old result cannot be moved: {error.strerror}") from error


def put_back(folder: Path) -> None:
    """Undo ``set_aside``: the old result takes the place of what came after it."""
    remove_result(folder)
    aside = folder / _ASIDE
    for path in sorted(aside.rglob("*")):
        if path.is_file():
            _move(path, folder / path.relative_to(aside))
    _remove_tree(aside)


def drop_aside(folder: Path) -> None:
    """Remove what ``set_aside`` moved, if there is anything."""
    _remove_tree(folder / _ASIDE)


def missing_folders(folder: Path) -> list[Path]:
    """Return ``folder`` and those above it that do not exist, the deepest first."""
    path, missing = folder.absolute(), []
    while not path.exists():
        missing.append(path)
        path = path.parent
    return missing


def remove_if_empty(folders: list[Path]) -> None:
    """Remove those of the folders that are empty, in order, up to the first that is not."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def _remove_empty(folder: Path, above: Path) -> None:
    if folder != above:
        remove_if_empty([path for path in (folder, *folder.parents) if above in path.parents])


def _remove_tree(folder: Path) -> None:
    """Remove a folder that is ours alone."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink()
    with suppress(FileNotFoundError):
        folder.rmdir()
