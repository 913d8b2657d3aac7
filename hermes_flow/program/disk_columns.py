"""Columns that lie in temporary files and are mapped into memory, for runs that are longer than the memory.

The files have no names: they go when the last array that looks at them goes, also after a failure. Pages that were
read stay in memory until ``forget_pages``, and are read again when they are needed.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from hermes_flow.errors import HermesFlowError

T = TypeVar("T")


class DiskColumn:
    """A column that grows at its end, and is an array when it is complete. A column of equal values takes no room.

    Both methods raise HermesFlowError where there is no room for temporary files.
    """

    __slots__ = ("_count", "_dtype", "_file", "_value")

    def __init__(self, dtype: Any = np.int64) -> None:
        self._dtype = np.dtype(dtype)
        self._count = 0
        self._value: Any = None
        self._file: IO[bytes] | None = None

    def append(self, values: NDArray[Any]) -> None:
        """Add values at the end."""
        if not len(values):
            return
        if self._file is None:
            if self._value is None:
                self._value = values[0]
            if (values == self._value).all():
                self._count += len(values)
                return
            self._write(np.full(self._count, self._value))
        self._write(values)
        self._count += len(values)

    def array(self) -> NDArray[Any]:
        """Return the whole column, which nobody may change."""
        if self._file is None:
            value = 0 if self._value is None else self._value
            return np.broadcast_to(np.array(value, dtype=self._dtype), (self._count,))
        with _room():
            self._file.flush()
        return np.memmap(self._file, dtype=self._dtype, mode="r")

    def _write(self, values: NDArray[Any]) -> None:
        with _room():
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the column
            self._file.write(np.ascontiguousarray(values, dtype=self._dtype).data)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HermesFlowError(
            f"the folder for temporary files, {tempfile.gettempdir()}, cannot be written: "
            f"{error.strerror or error}; the variable TMPDIR names another one"
        ) from error


def on_disk(whole: T) -> T:
    """Return a dataclass with all columns on the disk, also those of its parts; equal columns stay one.

    Raises HermesFlowError where there is no room for temporary files.
    """
    return _moved(whole, {})  # type: ignore[no-any-return]


def _moved(value: Any, known: dict[int, tuple[Any, Any]]) -> Any:
    if isinstance(value, np.ndarray) and value.ndim == 1 and len(value):
        if id(value) not in known:
            column = DiskColumn(value.dtype)
            column.append(value)
            known[id(value)] = (column.array(), value)  # the old array keeps its id until the end
        return known[id(value)][0]
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(_moved(part, known) for part in value)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: getattr(value, field.name) for field in fields(value) if field.init}
        changed = {name: _moved(part, known) for name, part in parts.items()}
        changed = {name: part for name, part in changed.items() if part is not parts[name]}
        return replace(value, **changed) if changed else value
    return value


def forget_pages(*wholes: Any) -> None:
    """Let the pages of all columns on the disk go from memory, in dataclasses, tuples and arrays."""
    for whole in wholes:
        if isinstance(whole, np.memmap):
            _forget(whole)
        elif isinstance(whole, tuple | list):
            forget_pages(*whole)
        elif is_dataclass(whole) and not isinstance(whole, type):
            forget_pages(*(getattr(whole, field.name) for field in fields(whole)))


def _forget(column: np.memmap[Any, Any]) -> None:
    pages = getattr(column, "_mmap", None)
    if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)
