"""Folders of results as the command writes them, and copies of them in which something is changed."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
from cli.command import Finished

from hermes_flow.cli import main


def command(cwd: Path, *arguments: str) -> Finished:
    """Run ``hermes-flow`` in this process."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(list(arguments))
        except SystemExit as left:
            status = int(left.code or 0)
    return Finished(status, out.getvalue(), err.getvalue())


def simulated(folder: Path, *overrides: str) -> Path:
    """Run a simulation into ``folder``, with its steps, and return the folder."""
    done = command(folder.parent, "output.steps=true", f"hydra.run.dir={folder.name}", *overrides)
    assert done.status == 0, done.err
    return folder


def with_table(folder: Path, copy: Path, name: str, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Path:
    """Copy the results to ``copy``, with the table changed."""
    shutil.copytree(folder, copy)
    path = copy / f"{name}.parquet"
    change(pl.read_parquet(path)).write_parquet(path)
    return copy


def with_figure(folder: Path, copy: Path, key: str, value: Any) -> Path:
    """Copy the results to ``copy``, with one figure of the summary replaced, or added to if it is a list."""
    shutil.copytree(folder, copy)
    path = copy / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8"))
    *above, last = key.split("/")
    section = summary
    for part in above:
        section = section[part]
    assert last in section
    section[last] = value(section[last]) if callable(value) else value
    path.write_text(json.dumps(summary), encoding="utf-8")
    return copy
