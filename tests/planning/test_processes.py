"""The processes of a plan end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLEEPING = """
import time
from hermes_flow.planning import processes

processes.START_AFTER_S = 0.0
with processes.Workers(2, int) as workers:
    workers.map(time.sleep, [0.0, 0.0, *[60.0] * 6])
"""


def children(process: subprocess.Popen[bytes]) -> list[int]:
    return [
        int(text) for text in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ]


def is_worker(pid: int) -> bool:
    try:
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes are found as Linux lists them")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_process_that_started_them_whatever_ends_that(number: int) -> None:
    heeded = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell may ignore it
    )
    started = subprocess.Popen([sys.executable, "-c", heeded + SLEEPING], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (workers := [pid for pid in children(started) if is_worker(pid)]):
            assert time.monotonic() < until
            time.sleep(0.02)
        time.sleep(0.5)  # the worker is at its work
        os.kill(started.pid, number)
        started.wait(30)  # and not the minute of that work
        while any(is_worker(pid) for pid in workers):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        started.kill()
