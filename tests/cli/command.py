"""Runs the command as a user does: in a process and a folder of its own."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hermes_flow.cli import main
from hermes_flow.config.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
LONGEST_S = 240  # that a test waits for a command: less than pytest lets the test take


@dataclass(frozen=True, slots=True)
class Finished:
    """What the command printed and how it ended."""

    status: int
    out: str
    err: str

    @property
    def folder(self) -> Path:
        """The folder that the last line but what follows a colon names as written to."""
        (line,) = (line for line in self.out.splitlines() if line.startswith("Written to "))
        return Path(line.removeprefix("Written to ").split(":")[0])


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HYDRA_", "HERMES_"))}
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return kept | {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"} | changes


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "hermes_flow", *arguments]


def in_background(cwd: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    """Start ``hermes-flow`` in ``cwd``, and return the process as it runs; Ctrl-C stops it.

    A shell without job control starts its background commands with Ctrl-C ignored, and so all that they start.
    """
    return subprocess.Popen(
        command(*arguments),
        cwd=cwd,
        env=environment(),
        encoding="utf-8",
        **{
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "preexec_fn": partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
            **options,
        },
    )


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until ``path`` exists; fails where the process ends before."""
    deadline = time.monotonic() + LONGEST_S
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def in_this_process(cwd: Path, *arguments: str) -> Finished:
    """Run ``hermes-flow`` in ``cwd`` without a process of its own, which is quicker."""
    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as leaving:
            status = leaving.code
    assert isinstance(status, int)
    return Finished(status, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def plugins_forgotten() -> Iterator[None]:
    """Forget at the end what plug-ins in files have registered, as the end of a process does."""
    yield
    registries = {
        id(found): found
        for module in list(sys.modules.values())
        for found in vars(module).values()
        if type(found) is Registry
    }
    for registry in registries.values():
        for name, cls in list(registry._classes.items()):
            if cls.__module__.startswith("hermes_flow_plugin_"):
                del registry._classes[name]


def hermes_flow(cwd: Path, *arguments: str, **changes: str) -> Finished:
    """Run ``hermes-flow`` with ``arguments`` in ``cwd``; ``changes`` are environment variables."""
    done = subprocess.run(
        command(*arguments),
        cwd=cwd,
        env=environment(**changes),
        capture_output=True,
        encoding="utf-8",
        timeout=LONGEST_S,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)
