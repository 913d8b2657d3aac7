"""Locks a folder while a command writes into it, so that no second one does so at the same time."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from hermes_flow.errors import HermesFlowError

_NAME = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # file systems that cannot lock


class FolderLock:
    """A lock on ``folder``, which exists. It ends with the process that holds it, whatever ends that.

    Without ``wait``, entering raises HermesFlowError where another process holds the lock.
    """

    def __init__(self, folder: Path, wait: bool = False) -> None:
        self._folder = folder
        self._path = folder / _NAME
        self._wait = wait
        self._file: int | None = None

    def __enter__(self) -> FolderLock:
        while self._file is None:
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT)
            except OSError as error:
                raise HermesFlowError(f"{self._folder}: cannot be written: {error.strerror}") from error
            try:
                self._lock(file)
                if self._is_at_path(file):  # or its holder removed the file before we had the lock
                    self._file, file = file, -1
            finally:
                if file >= 0:
                    os.close(file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            if os.name != "nt":  # Windows removes no open file
                self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None
            if os.name == "nt":
                with suppress(OSError):
                    self._path.unlink(missing_ok=True)

    def _lock(self, file: int) -> None:
        try:
            _lock(file, self._wait)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise HermesFlowError(
                    f"{self._folder}: another hermes-flow is writing into this folder; "
                    "wait for its end, or name another folder"
                ) from None

    def _is_at_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False


if os.name == "nt":
    import msvcrt

    def _lock(file: int, wait: bool) -> None:
        msvcrt.locking(file, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
else:
    import fcntl

    def _lock(file: int, wait: bool) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
