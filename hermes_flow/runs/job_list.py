"""The list of a sweep's jobs, kept in its folder, by which a later command knows its own sweep from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from hermes_flow.errors import HermesFlowError
from hermes_flow.metrics.files import write_text
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.runs.result_files import JOBS_FILE

_DEPTH = 2  # folders of groups within a folder of configs


@dataclass(frozen=True, slots=True)
class JobList:
    """The overrides of every job by its number, the version of hermes-flow, and a digest of the config files.

    Equal overrides over equal files compose to equal configurations.
    """

    version: str
    sources: str
    jobs: tuple[tuple[str, ...], ...]

    def write(self, folder: Path) -> None:
        """Write the list into the folder of the sweep. Raises HermesFlowError where that is not possible."""
        jobs = ",\n".join(json.dumps(job, ensure_ascii=False) for job in self.jobs)
        head = f'{{"version": {json.dumps(self.version)}, "sources": {json.dumps(self.sources)}'
        write_text(f'{head}, "jobs": [\n{jobs}\n]}}\n', folder / JOBS_FILE)

    def difference(self, earlier: JobList) -> str | None:
        """Return in words how the ``earlier`` sweep is another one than this; None where it is the same."""
        if earlier.version != self.version:
            return f"it was begun by hermes-flow {earlier.version}, and this is {self.version}"
        for number, (old, new) in enumerate(zip(earlier.jobs, self.jobs, strict=False)):
            if old != new:
                return f"its job {number} is {_words(old, new)}, and here it is {_words(new, old)}"
        if len(earlier.jobs) != len(self.jobs):
            return f"it has {len(earlier.jobs)} jobs, and this one has {len(self.jobs)}"
        return None


def read_job_list(folder: Path) -> JobList | None:
    """Return the list in the folder of a sweep; None where there is none. Raises HermesFlowError if broken."""
    path = folder / JOBS_FILE
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return JobList(given["version"], given["sources"], tuple(tuple(job) for job in given["jobs"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HermesFlowError(f"{path}: cannot be read: {error}") from error


def sources_digest(folders: Iterable[Path]) -> str:
    """Return the SHA-256 of the names and contents of the config files in ``folders``."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in _yaml_files(folder, _DEPTH):
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _yaml_files(folder: Path, depth: int) -> list[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError:
        return []
    found = [path for path in entries if path.suffix == ".yaml" and path.is_file()]
    for path in entries:
        if depth and path.is_dir() and not path.name.startswith("."):
            found += _yaml_files(path, depth - 1)
    return found


def _words(job: Sequence[str], other: Sequence[str]) -> str:
    """Return the overrides of ``job`` that ``other`` lacks."""
    return " ".join(text for text in job if text not in other) or "the job without them"
