"""Reads the file beside a log in which its tool says how requests were sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hermes_flow.config.documents import DocumentError
from hermes_flow.errors import TraceError, reason
from hermes_flow.workload.records.record_format import Source


def beside(source: Source, name: str, read: Callable[[str], Any]) -> Any:
    """Return what ``read`` finds in the file ``name`` of the log's folder, None where there is no such file.

    Raises TraceError where it cannot be read: without it, requests would be sent another way than they were.
    """
    path = source.path.parent / name
    try:
        return read(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except DocumentError as error:
        raise TraceError(str(path), error.line, error.problem) from None
    except (OSError, ValueError) as error:
        raise TraceError(str(path), None, f"cannot be read: {reason(error)}") from None
