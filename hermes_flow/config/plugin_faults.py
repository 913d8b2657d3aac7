"""Finds the plug-in of a user behind an error, and the line of it that failed.

What a plug-in registers is noted in its module, under the name ``MARK``: a text that names it, by the qualified
name of its class. A frame of a traceback leads to its module, so nothing has to be remembered elsewhere.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from types import FrameType
from typing import Any

from hermes_flow.errors import HermesFlowError, InternalError, PluginError

MARK = "__hermes_flow_plugin__"


def mark_plugin(module: dict[str, Any], what: str, qualname: str = "") -> None:
    """Note in a module that it is a plug-in: ``what`` names its class ``qualname``, or the whole module."""
    module.setdefault(MARK, {})[qualname] = what


def plugin_fault(error: BaseException) -> PluginError | None:
    """Return an error that names the plug-in whose code raised ``error``; None if no plug-in did it.

    The line is the innermost one of a plug-in. A plug-in that raises a HermesFlowError, such as a ConfigError, has a
    message of its own for the user: None too.
    """
    if isinstance(error, PluginError):
        return error
    if isinstance(error, HermesFlowError) and not isinstance(error, InternalError):
        return None
    found: tuple[FrameType, int] | None = None
    for frame, line in traceback.walk_tb(error.__traceback__):
        if MARK in frame.f_globals:
            found = frame, line
    if found is None:
        return None
    frame, line = found
    code = frame.f_code
    what = _what(frame.f_globals[MARK], code.co_qualname)
    return PluginError(what, said(error), code.co_filename, line, code.co_name)


def import_fault(error: BaseException, what: str) -> PluginError:
    """Return an error that names the plug-in ``what``, whose import raised ``error``.

    The line is the innermost one of the plug-in's file, or of a file in its folder.
    """
    if isinstance(error, SyntaxError) and error.filename is not None:
        return PluginError(what, said(error), error.filename, error.lineno)
    frames = [
        (frame.f_code, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if "importlib" not in frame.f_code.co_filename
    ]
    own = frames[1:]  # the first one is our own
    if not own:
        return PluginError(what, said(error))
    folder = os.path.dirname(own[0][0].co_filename)
    code, line = [frame for frame in own if frame[0].co_filename.startswith(folder)][-1]
    return PluginError(what, said(error), code.co_filename, line, code.co_name)


def said(error: BaseException) -> str:
    """Return the type and the text of an error, for a message."""
    if isinstance(error, InternalError):
        return error.problem
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _what(names: Mapping[str, str], qualname: str) -> str:
    """Return what the function ``qualname`` belongs to: the class that is registered, else the module."""
    parts = qualname.split(".")
    for length in range(len(parts), 0, -1):
        name = names.get(".".join(parts[:length]))
        if name is not None:
            return name
    return names.get("") or " and ".join(names.values())
