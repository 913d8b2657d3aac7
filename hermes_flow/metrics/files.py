"""Writes a file whole or not at all, so that a reader never finds an incomplete result."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from hermes_flow.errors import HermesFlowError

if TYPE_CHECKING:
    import polars as pl


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
