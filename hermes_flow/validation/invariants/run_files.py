"""The files of one run, read as far as they are there: tables, summary and configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.documents import read_json
from hermes_flow.config.unreadable import unreadable

if TYPE_CHECKING:
    import polars as pl

TABLES = ("requests", "stages", "clients", "links", "steps")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What is in the folder of a run.

    ``tables`` are the frames by name, ``summary`` the figures, ``config`` the configuration (an empty mapping where
    the folder has none). ``unreadable`` says by file what is wrong with those that are there and cannot be read.
    """

    folder: Path
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    def has(self, file: str) -> bool:
        """Return whether a table, the "summary" or the "config" is there."""
        if file == "summary":
            return bool(self.summary)
        if file == "config":
            return bool(self.config)
        return file in self.tables

    def figure(self, *path: str) -> Any:
        """Return an entry of the summary; None where there is none."""
        return _entry(self.summary, path)

    def setting(self, *path: str) -> Any:
        """Return an entry of the configuration; None where there is none."""
        return _entry(self.config, path)

    def pool_setting(self, pool: str, key: str) -> Any:
        """Return a setting of a pool, which it may leave to the engine."""
        own = self.setting("cluster", "pools", pool, key)
        if own is not None:
            return own
        engine = self.setting("cluster", "pools", pool, "engine", key)
        return self.setting("engine", key) if engine is None else engine

    def pool_hardware(self, pool: str, key: str) -> Any:
        """Return a figure of a pool's hardware, which may be the one that is chosen for the whole configuration."""
        own = self.setting("cluster", "pools", pool, "hardware")
        return self.setting("hardware", key) if own is None else _entry(own, (key,))


def read_run(folder: Path) -> RunFiles:
    """Return the files of the run in ``folder``; what cannot be read is in ``unreadable``, not an error."""
    files = RunFiles(folder)
    for name in (*TABLES, "fleet"):
        _read_table(files, name)
    _read_summary(files)
    _read_config(files)
    return files


def _read_table(files: RunFiles, name: str) -> None:
    import polars as pl

    path = files.folder / f"{name}.parquet"
    if not path.is_file():
        return
    try:
        files.tables[name] = pl.read_parquet(path, glob=False)
    except unreadable() as error:
        files.unreadable[path.name] = str(error).splitlines()[0]


def _read_summary(files: RunFiles) -> None:
    path = files.folder / "summary.json"
    if not path.is_file():
        return
    try:
        loaded = read_json(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        files.unreadable[path.name] = str(error)
        return
    if isinstance(loaded, dict):
        files.summary.update(loaded)
    else:
        files.unreadable[path.name] = "it is not a mapping"


def _read_config(files: RunFiles) -> None:
    from hermes_flow.config.quick_yaml import read_resolved

    path = files.folder / ".hydra" / "config.yaml"
    if not path.is_file():
        return
    try:
        plain = read_resolved(path.read_text(encoding="utf-8"))
    except Exception as error:  # YAML, its encoding or the file: all of them mean that it cannot be read
        files.unreadable[".hydra/config.yaml"] = str(error).splitlines()[0]
        return
    if isinstance(plain, dict):
        files.config.update(plain)


def _entry(mapping: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(mapping, dict):
            return None
        mapping = mapping.get(key)
    return mapping
