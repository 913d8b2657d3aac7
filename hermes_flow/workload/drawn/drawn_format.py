"""The interface of files that describe a load, and finding the format of one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from hermes_flow.config.documents import DocumentError, read_yaml
from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import ConfigError, TraceError, reason
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests

_YAML = (".yaml", ".yml")
# Keys of a trace workload that say nothing about a load that is drawn, with their values when nobody gave them.
_UNUSED: Mapping[str, Any] = {
    "columns": {},
    "time_unit": None,
    "prefix_block_tokens": None,
    "arrivals": None,
    "rate_per_s": None,
    "tokens_per_image": None,
    "tokenizer": None,
    "characters_per_token": None,
}


class DrawnFormat(Protocol):
    """The format of a file that describes a load."""

    @staticmethod
    def fits(path: Path, document: Any) -> bool:
        """Return whether the file or folder has this format; ``document`` is a YAML file's content, else None."""

    @staticmethod
    def draw(path: Path, document: Any, workload: TraceWorkload) -> Requests:
        """Draw the requests in order of arrival; raises ConfigError or TraceError."""


drawn_formats: Registry[DrawnFormat] = Registry(
    "trace format", tag="format", package=__package__, methods=("fits", "draw")
)


def draw_from(workload: TraceWorkload) -> Requests | None:
    """Return requests drawn from the load that ``workload.path`` describes, or None where it is no such file.

    Equal workloads give equal requests. Raises ConfigError where a key of the workload has no meaning for such
    a file.
    """
    path = Path(workload.path).expanduser()
    names = drawn_formats.names
    if not (workload.format == "auto" or workload.format in names):
        return None
    try:
        if not path.exists():
            return None
    except (OSError, ValueError):  # a name that no file can have, which the reader of tables refuses
        return None
    document = _document(path) if path.suffix.lower() in _YAML else None
    if document is None and not path.is_dir() and not path.name.endswith("-trace.csv"):
        return None
    formats = names if workload.format == "auto" else [workload.format]
    for name in formats:
        layout = drawn_formats.find(name, "workload.format")
        if layout.fits(path, document):
            _require_no_other_keys(workload, name)
            try:
                requests: Requests = layout.draw(path, document, workload)
            except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
                raise TraceError(str(path), None, f"is not as the format {name} has it: {error}") from error
            return requests if workload.limit is None else _head(requests, workload.limit)
    if document is not None:
        known = ", ".join(names)
        raise TraceError(str(path), None, f"is YAML of no known format; expected one of: {known}")
    if workload.format != "auto":
        raise TraceError(str(path), None, f"is not of the format {workload.format} (docs/workloads.md)")
    return None


def _require_no_other_keys(workload: TraceWorkload, name: str) -> None:
    for key, unset in _UNUSED.items():
        if getattr(workload, key) != unset:
            problem = f"has no effect on workload.format={name}, from which requests are drawn; leave it out"
            raise ConfigError(f"workload.{key}", problem)


def _document(path: Path) -> Any:
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except DocumentError as error:
        raise TraceError(str(path), error.line, error.problem) from error
    except (OSError, ValueError) as error:
        raise TraceError(str(path), None, f"cannot be read: {reason(error)}") from error


def _head(requests: Requests, limit: int) -> Requests:
    """Return the first requests."""
    if limit >= len(requests):
        return requests
    prefixes = requests.prefixes
    kept: dict[str, Any] = {
        field.name: value[:limit]
        for field in fields(requests)
        if isinstance(value := getattr(requests, field.name), np.ndarray)
    }
    if isinstance(prefixes, SessionPrefixes):
        cut: dict[str, Any] = {
            field.name: getattr(prefixes, field.name)[:limit] for field in fields(prefixes)
        }
        return replace(requests, **kept, prefixes=SessionPrefixes(**cut))
    return replace(requests, **kept)
