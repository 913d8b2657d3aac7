"""Draws whole command lines and runs them as the command does, but within this process."""

from __future__ import annotations

import contextlib
import io
import random
import re
import tempfile
from pathlib import Path

from benchmarks.fuzz.outcome import Outcome, Try
from benchmarks.fuzz.overrides import BROKEN, command

_VERBS = ("", "", "", "simulate", "compile", "capacity", "compare", "report", "validate", "import", "export")
_WORDS = (
    *(
        "simulat",
        "nothing",
        "-x",
        "--nothing",
        "--help",
        "--version",
        "-h",
        "--config-dir=nowhere",
        "--cfg=job",
    ),
    *(
        "report outputs",
        "validate task.invariants=nowhere",
        "compare a b",
        "import vllm x",
        "import nothing x",
    ),
    *(
        "export vllm",
        "calibrate task.path=nowhere.csv",
        "-m",
        "-m seed=1,2",
        "task=nothing",
        "hydra.run.dir=",
    ),
    *("output.trace=true", "output.report=maybe", "hydra.job.name=x", "hydra/launcher=nothing", "a b", "'"),
)
_OURS = re.compile(r"Traceback|internal error|Exception ignored|Set the environment variable HYDRA_FULL")


def command_line(rng: random.Random) -> Try:
    """Draw a verb, words and overrides, mostly wrong ones: a sound command takes long."""
    words = command(rng)
    verb = rng.choice(_VERBS)
    if verb:
        words.insert(0, verb)
    for _ in range(rng.choice((0, 1, 1, 2))):
        words[rng.randrange(len(words) + 1) : 0] = rng.choice((*_WORDS, *BROKEN)).split(" ")
    if verb == "capacity":
        words.append("task.max_probes=2")
    return Try("command", tuple(words), run_command)


def run_command(words: tuple[str, ...]) -> Outcome:
    """Run ``hermes-flow`` with these words in an empty folder."""
    from hermes_flow.cli import main

    out, err = io.StringIO(), io.StringIO()
    status: object = 0
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(list(words))
            except SystemExit as leaving:
                status = leaving.code
            except Exception as error:  # what the fuzz looks for
                return Outcome(words, False, f"{type(error).__name__} left the command: {error}"[:300])
        left = sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*"))
    return Outcome(words, status == 0, _unclean(status, out.getvalue(), err.getvalue(), left))


def _unclean(status: object, out: str, err: str, left: list[str]) -> str | None:
    """Return what is wrong with how a command ended, or None."""
    if status in (0, None):
        return f"ended with 0 and said {err[:300]!r}" if err.strip() else None
    if status not in (1, 2):
        return f"ended with {status}: {err[-300:]}"
    shown = _OURS.search(out + err)
    if shown is not None:
        return f"shows {shown[0]!r}: {err[-1500:]}"
    blocks = [line for line in err.splitlines() if line.startswith("hermes-flow: ")]
    swept = "sweep.parquet" in " ".join(left)  # its table names what failed
    if len(blocks) != 1 and not swept:
        return f"{len(blocks)} messages in place of one: {err[-600:]}"
    wide = [line for line in err.splitlines() if len(line) > 80 and " " in line.strip()[:70]]
    if wide and not swept:
        return f"a line of {len(wide[0])} columns: {wide[0]}"
    if left and not swept:
        return f"failed and left {left[:4]}"
    return None
