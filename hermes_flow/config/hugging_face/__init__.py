"""Reads models as Hugging Face publishes them: a config.json, and what lies beside it, as a catalog entry."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def is_hugging_face(path: str | Path) -> bool:
    """Tell whether ``path`` names a JSON file, there or not, or a folder that holds a config.json."""
    return str(path).endswith(".json") or (Path(path).expanduser() / "config.json").is_file()


def entry_of(path: str | Path, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
    """Return the model of ``path`` as the catalog writes it; see ``read.entry_of``."""
    from hermes_flow.config.hugging_face import read

    return read.entry_of(path, kind, name)
