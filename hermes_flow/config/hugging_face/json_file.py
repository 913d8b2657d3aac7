"""Reads one of the JSON files of a checkpoint; what is wrong names the file and the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hermes_flow.config.documents import DocumentError, read_json
from hermes_flow.errors import ConfigError


def json_file(path: Path) -> Any:
    """Return what a JSON file holds, None where there is no such file; raises ConfigError where it is broken."""
    try:
        return read_json(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise ConfigError(
            str(path) if error.line is None else f"{path}:{error.line}", error.problem
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None
