"""The record of one job of a sweep: what it computed, from which configuration, and how it ended."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from hermes_flow.metrics.files import write_text
from hermes_flow.runs.result_files import JOB_FILE

# A value of a YAML text that may name a file: the end of a line, after a key or a dash.
_VALUE = re.compile(r"(?:: |- )([^\s'\"{\[$][^\n]*[./\\][^\n]*)$", re.MULTILINE)
_NUMBER = re.compile(r"[-+.\d][\d_.eE+-]*")


@dataclass(frozen=True)
class Identity:
    """What decides a job's result: its composed configuration ``text``, and the files that this names."""

    text: str

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of the configuration."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def inputs(self) -> dict[str, list[int]]:
        """The size and the time of change, in ns, of every file that the configuration names (traces, tables)."""
        found = {}
        for name in set(_VALUE.findall(self.text)):
            if _NUMBER.fullmatch(name) is None and (stamp := _stamp(name)) is not None:
                found[name] = stamp
        return found


@dataclass(frozen=True, slots=True)
class JobRecord:
    """How a job ended. It is the last file that a job writes, so a job without one did not end.

    ``problem`` is the first line of a failed job's error, and ``seconds`` are of wall time.
    """

    status: Literal["completed", "failed"]
    digest: str
    inputs: Mapping[str, list[int]] = field(default_factory=dict)
    seconds: float = 0.0
    problem: str | None = None

    @property
    def completed(self) -> bool:
        """Whether the job has its result."""
        return self.status == "completed"

    def is_of(self, identity: Identity) -> bool:
        """Return whether the job ran with this configuration, and with the files as they are now."""
        return self.digest == identity.digest and self.has_its_inputs()

    def has_its_inputs(self) -> bool:
        """Return whether the files that the job read are as they were."""
        return all(_stamp(name) == list(stamp) for name, stamp in self.inputs.items())

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the job. Raises HermesFlowError where that is not possible."""
        write_text(json.dumps(asdict(self), ensure_ascii=False) + "\n", folder / JOB_FILE)


def read_record(folder: Path) -> JobRecord | None:
    """Return the record in the folder of a job; None where the job did not end."""
    try:
        return JobRecord(**json.loads((folder / JOB_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _stamp(name: str) -> list[int] | None:
    with suppress(OSError, ValueError):
        status = Path(name).expanduser().stat()
        return [status.st_size, status.st_mtime_ns]
    return None
