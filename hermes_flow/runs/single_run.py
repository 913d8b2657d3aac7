"""Keeps the folder of a single run: no old result is mixed with a new one, and a failed run leaves nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hermes_flow.errors import CheckError, ConfigError, HermesFlowError, InternalError, reason
from hermes_flow.runs.folder_lock import FolderLock
from hermes_flow.runs.result_files import (
    PROBES_FILES,
    drop_aside,
    missing_folders,
    put_back,
    remove_if_empty,
    remove_result,
    result_in,
    set_aside,
)
from hermes_flow.runs.settings import folder_settings, resuming
from hermes_flow.runs.stopping import Stopped


@contextmanager
def guarded_runs(failure: Callable[[], BaseException | None]) -> Iterator[None]:
    """Let Hydra start a single run only in a folder without a result, or with ``output.overwrite=true``.

    ``failure`` returns why the run failed, after its end. Then an old result is there again, or the folder is gone.
    """
    import hydra._internal.hydra as internal

    run_job = vars(internal)["run_job"]

    def guarded(*args: Any, config: Any, **kwargs: Any) -> Any:
        settings = folder_settings(config)
        if settings.sweep_keys:
            raise ConfigError(settings.sweep_keys[0], "only a sweep has it; add -m to run one")
        folder = Path(str(config.hydra.run.dir))
        again = resuming(folder, config.hydra.overrides.hydra)
        with kept_folder(folder, settings.overwrite, failure, again):
            return run_job(*args, config=config, **kwargs)

    vars(internal)["run_job"] = guarded
    try:
        yield
    finally:
        vars(internal)["run_job"] = run_job


@contextmanager
def kept_folder(
    folder: Path,
    overwrite: bool,
    failure: Callable[[], BaseException | None] = lambda: None,
    again: str | None = None,
) -> Iterator[None]:
    """Lock ``folder`` for the run in this block. An old result in it is refused or, with ``overwrite``, replaced.

    After a failure the old result is there again; without one, what the run created is removed. The simulations of a
    search that is stopped stay, and ``again`` is the command that goes on from them. The settings of a run that ends
    by a fault of hermes_flow stay, too, for the report of it. Raises HermesFlowError.
    """
    refuse_used(folder, overwrite)
    created = missing_folders(folder)
    make_folder(folder, "hydra.run.dir")
    try:
        with FolderLock(folder):
            had = refuse_used(folder, overwrite)
            if had:
                set_aside(folder)
            error: BaseException | None = None
            kept = False
            try:
                yield
            except BaseException as raised:
                error = raised
                kept = not had and isinstance(raised, KeyboardInterrupt) and _has_probes(folder)
                if kept:
                    raise _with_probes(raised, again or resuming(folder, [])) from None
                raise
            finally:
                error = error or failure()
                if isinstance(error, CheckError):
                    error = None  # its results are what was asked for
                if error is not None and had:
                    put_back(folder)
                elif error is not None and not kept and not _is_fault(error):
                    remove_result(folder)
                drop_aside(folder)
    finally:
        remove_if_empty(created)


def _has_probes(folder: Path) -> bool:
    return any((folder / name).is_file() for name in PROBES_FILES)


def _with_probes(stopped: BaseException, again: str) -> Stopped:
    """Return what stopped a search, with the command that goes on from its simulations."""
    return Stopped(
        f"{str(stopped) or 'interrupted'}; {again} goes on from the simulations that are done",
        getattr(stopped, "status", 130),
        getattr(stopped, "so_far", ""),
    )


def refuse_used(folder: Path, overwrite: bool) -> bool:
    """Return whether ``folder`` holds a result; raises HermesFlowError if it does and is not to be replaced."""
    kind = result_in(folder)
    if kind is not None and not overwrite:
        raise HermesFlowError(
            f"{folder}: holds the result of {kind}; output.overwrite=true replaces it, and hydra.run.dir=… names "
            "another folder"
        )
    return kind is not None


def make_folder(folder: Path, key: str) -> None:
    """Create ``folder`` where it is missing; raises HermesFlowError where it cannot be made or written into.

    ``key`` is the setting that names another folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if os.access(folder, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        problem = reason(error)
    if problem:
        raise HermesFlowError(f"{folder}: cannot be written: {problem}; {key}=… names another folder")


def _is_fault(error: BaseException) -> bool:
    """Tell whether ``error`` is none that a user causes."""
    known = HermesFlowError, KeyboardInterrupt, OSError
    return isinstance(error, InternalError) or not isinstance(error, known)
