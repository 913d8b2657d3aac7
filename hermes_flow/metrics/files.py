"""Writes a file whole or not at all, so that a reader never finds an incomplete result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hermes_flow.errors import HermesFlowError

if TYPE_CHECKING:
    import polars as pl

_GROUP_ROWS = 1 << 18  # of a row group, as Polars cuts a whole frame


def replace_file(path: Path, fill: Callable[[IO[bytes]], object]) -> Path:
    """Write ``path`` by ``fill(file)`` beside it, then put it in place; returns ``path``.

    Creates missing folders. Raises HermesFlowError naming the path where it cannot be written (no room, no
    permission, a file in a folder's place), and leaves what was there before.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                fill(file)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise HermesFlowError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def write_text(text: str, path: Path) -> Path:
    """Replace ``path`` by the text in UTF-8. Raises HermesFlowError as ``replace_file`` does."""
    return replace_file(path, lambda file: file.write(text.encode()))


def write_parquet(frame: pl.DataFrame, path: Path) -> Path:
    """Replace ``path`` by the frame; equal frames give equal bytes. Raises as ``replace_file`` does."""
    from polars.exceptions import PolarsError

    def fill(file: IO[bytes]) -> None:
        try:
            frame.write_parquet(file, compression="lz4")
        except PolarsError as error:
            raise OSError(str(error)) from error

    return replace_file(path, fill)


def write_pieces(frames: Iterator[pl.DataFrame], path: Path) -> Path:
    """Replace ``path`` by the frames, one after the other; only a few of them are in memory at a time.

    There is at least one frame, and all have the same columns. Raises as ``replace_file`` does.
    """
    from polars.exceptions import PolarsError
    from polars.io.plugins import register_io_source

    first = next(frames)

    def source(*asked: object) -> Iterator[pl.DataFrame]:
        yield first
        yield from frames

    def fill(file: IO[bytes]) -> None:
        try:
            table = register_io_source(source, schema=first.schema, is_pure=True)
            table.sink_parquet(file, compression="lz4", row_group_size=_GROUP_ROWS, maintain_order=True)
        except PolarsError as error:
            raise OSError(str(error)) from error

    return replace_file(path, fill)
