"""Reports a fault of hermes_flow itself: a short message, and the traceback in a file to send with it."""

from __future__ import annotations

import os
import tempfile
import traceback
from pathlib import Path


def fault_message(error: BaseException) -> str:
    """Return the message for an error that no setting explains; its traceback goes into a file.

    An error for want of memory is no fault: its message says what to make smaller.
    """
    if isinstance(error, MemoryError):
        return "there is not enough memory for this run; expected fewer requests, tokens or clients"
    said = " ".join(str(error).split())
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if len(what) > 200:
        what = what[:199] + "…"
    kept = _kept(error)
    where = f"The traceback is in {kept}." if kept is not None else "HYDRA_FULL_ERROR=1 shows the traceback."
    return (
        f"internal error ({what}). No setting of yours is wrong.\n"
        f"  {where} Please report it, with your command, to the developers of hermes_flow."
    )


def _kept(error: BaseException) -> Path | None:
    """Write the traceback to a file of its own in the folder for temporary files; None where that fails."""
    text = "".join(traceback.format_exception(error))
    try:
        handle, name = tempfile.mkstemp(prefix="hermes-flow-error-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)
