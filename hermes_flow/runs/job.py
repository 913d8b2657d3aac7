"""Runs one job of a sweep in a folder of its own, once: a job that has its result does not run again."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.config.origin import shown_path
from hermes_flow.errors import CompileError, HermesFlowError, PluginError
from hermes_flow.metrics.files import write_text
from hermes_flow.runs.folder_lock import FolderLock
from hermes_flow.runs.job_record import Identity, JobRecord, read_record
from hermes_flow.runs.result_files import ERROR_FILE, remove_job_result
from hermes_flow.runs.stopping import keep_interrupts, stopped_by

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run_job(folder: Path, composed: DictConfig, do: Callable[[], object]) -> None:
    """Run ``do``, which writes its result into ``folder``, and write the record of the job.

    What ``do`` raises becomes the job's error, so that one job does not take the others with it; an interrupt is
    raised again. Nothing happens where the folder has the result of this configuration already. Raises
    HermesFlowError where the folder cannot be written.
    """
    with FolderLock(folder, wait=True):  # a process that outlived its killed command may still be at this job
        identity = identity_of(folder, composed)
        before = read_record(folder)
        if before is not None and before.completed and before.is_of(identity):
            return
        remove_job_result(folder)
        keep_interrupts()
        began = time.perf_counter()
        problem = None
        try:
            do()
            _mark_success(folder)
        except KeyboardInterrupt:
            _write_error(folder, HermesFlowError("interrupted"))
            raise
        except Exception as error:
            interrupt = stopped_by(error)
            if interrupt is not None:
                _write_error(folder, HermesFlowError("interrupted"))
                raise interrupt from None
            _write_error(folder, error)
            problem = problem_of(error)
        status: str = "completed" if problem is None else "failed"
        seconds = time.perf_counter() - began
        JobRecord(status, identity.digest, identity.inputs, seconds, problem).write(folder)  # type: ignore[arg-type]


def identity_of(folder: Path, composed: DictConfig) -> Identity:
    """Return the identity of a job; Hydra has written its composed configuration into ``folder``."""
    from omegaconf import OmegaConf

    try:
        text = (folder / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    except OSError:
        text = OmegaConf.to_yaml(composed)
    if "${oc." in text:  # the value is that of the environment
        text = OmegaConf.to_yaml(composed, resolve=True)
    return Identity(text)


def message_of(error: BaseException) -> str:
    """Return the message of ``error`` for users, without a list if it has a single problem."""
    if isinstance(error, CompileError) and len(error.problems) == 1:
        return error.problems[0]
    return str(error) if isinstance(error, HermesFlowError) else f"{type(error).__name__}: {error}"


def problem_of(error: BaseException) -> str:
    """Return ``error`` in one line: the first of its problems, and how many more there are."""
    problems = message_of(error).splitlines()[:1]
    if isinstance(error, CompileError):
        problems = list(error.problems)
    elif isinstance(error, PluginError):
        problems = [f"{shown_path(error.place)}: {error.what} failed: {error.said}"]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return (problems[0] if problems else type(error).__name__) + more


def _write_error(folder: Path, error: BaseException) -> None:
    """Write ``error`` for the table of the sweep, with a traceback if it is unexpected."""
    text = message_of(error)
    if isinstance(error, PluginError) or not isinstance(error, HermesFlowError):
        text += "\n\n" + "".join(traceback.format_exception(error))
    write_text(text + "\n", folder / ERROR_FILE)


def _mark_success(folder: Path) -> None:
    """Write an empty summary to the folder of a job whose verb has no figures, so that it has a row."""
    if not (folder / "summary.json").exists():
        write_text("{}\n", folder / "summary.json")
