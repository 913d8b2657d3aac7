"""A fault of hermes_flow says that it is one and keeps its traceback; a full disk has an answer of one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hermes_flow.internal_errors import fault_message

COMMAND = "from hermes_flow.cli import main; main()"
FAULTY = """
import hermes_flow.tasks.compile as verb
def run(self, config, folder):
    raise KeyError("a fault that nobody planned")
verb.CompileTask.run = run
from hermes_flow.cli import main
main()
"""


def finished(
    code: str, *arguments: str, stdout: object = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-c", code, *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )


def test_a_fault_of_ours_says_so_and_keeps_its_traceback(tmp_path: Path) -> None:
    done = finished(FAULTY, "compile", f"hydra.run.dir={tmp_path / 'run'}")
    first, second = done.stderr.splitlines()
    assert done.returncode == 1
    assert first.startswith("hermes-flow: internal error (KeyError: 'a fault that nobody planned').")
    assert "No setting of yours is wrong" in first
    kept = Path(second.split("The traceback is in ")[1].split(". Please report it")[0])
    assert "a fault that nobody planned" in kept.read_text()
    assert "Traceback" in kept.read_text()
    kept.unlink()


def test_a_want_of_memory_is_no_fault_of_ours() -> None:
    assert fault_message(MemoryError()).startswith("there is not enough memory for this run; expected fewer")


def test_a_long_error_is_cut_in_the_message_and_whole_in_the_file() -> None:
    message = fault_message(ValueError("x" * 5000))
    assert len(message.splitlines()[0]) < 300
    kept = Path(message.split("The traceback is in ")[1].split(". Please")[0])
    assert "x" * 5000 in kept.read_text()
    kept.unlink()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_the_output_is_one_line(tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = finished(COMMAND, "compile", f"hydra.run.dir={tmp_path / 'run'}", stdout=full)
    assert done.returncode == 1
    assert done.stderr == "hermes-flow: the output: No space left on device\n"
