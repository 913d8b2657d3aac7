"""Runs the commands of a page as a reader would: in a folder of their own, on a terminal of 80 columns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.question_runs import write_files

DATA = Path(os.environ.get("HERMES_FLOW_DATA", ROOT.parent / "shared" / "data"))
MEASURED = "../shared/"  # how pages name the measured data, which are not in the repository


class TooLongError(RuntimeError):
    """A script ran longer than it may."""


@contextmanager
def folder_of(page: Path) -> Iterator[Path]:
    """Yield a folder with the files that the page shows, and the measured data beside it where there are any."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "here"
        folder.mkdir()
        _write_programs(Path(place) / "bin")
        if DATA.is_dir():
            (Path(place) / "shared").mkdir()
            (Path(place) / "shared" / "data").symlink_to(DATA.resolve())
        write_files(page, folder)
        yield folder


def _write_programs(folder: Path) -> None:
    """Write the commands that a reader has installed: ``hermes-flow`` of this checkout, and its Python."""
    folder.mkdir()
    programs = {"hermes-flow": "-m hermes_flow ", "python": "", "python3": ""}
    for name, arguments in programs.items():
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}"$@"\n', encoding="utf-8")
        path.chmod(0o755)


def printed(script: str, folder: Path, limit_s: float) -> str:
    """Return what a terminal shows of a script that runs in ``folder``; raises TooLongError after ``limit_s``."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HERMES_FLOW_")}
    for key in ("PYTHONDONTWRITEBYTECODE", "FORCE_COLOR", "CLICOLOR_FORCE"):
        environment.pop(key, None)
    environment |= {
        "COLUMNS": "80",
        "NO_COLOR": "1",
        "TERM": "dumb",
        "PATH": f"{folder.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONIOENCODING": "utf-8",
    }
    process = subprocess.Popen(
        ["sh", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        start_new_session=True,  # so that all of it can be ended
    )
    started = time.perf_counter()
    try:
        text, _ = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TooLongError(f"it takes longer than {time.perf_counter() - started:.0f} s") from None
    return text
