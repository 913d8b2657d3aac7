"""Fresh processes and what they took, as the operating system accounts for each when it has ended.

Nothing heavy is imported here: a child's peak memory is at least that of the process that started it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Ended:
    """Output, wall and CPU seconds, and peak memory (MB) of a process that succeeded."""

    output: str
    wall_s: float
    cpu_s: float
    peak_mb: float


def run_module(module: str, *arguments: str, folder: Path = ROOT, package: Path = ROOT) -> Ended:
    """Run ``python -m module`` of this checkout in ``folder``; raises RuntimeError where it fails."""
    return run_python("-m", module, *arguments, folder=folder, package=package)


def run_python(*arguments: str, folder: Path = ROOT, package: Path = ROOT) -> Ended:
    """Run Python in ``folder`` with the modules in ``package``, else in this checkout.

    Raises RuntimeError where it fails.
    """
    environment = dict(os.environ)
    # A checkout without byte code would be compiled anew by every process, which no user of it sees twice.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(package), str(ROOT), os.environ.get("PYTHONPATH")])
    )
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with status {process.returncode}")
    kilobyte = 1 if sys.platform == "darwin" else 1024
    return Ended(output, wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * kilobyte / 1e6)
