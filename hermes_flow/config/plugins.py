"""Modules of users that register stage kinds, policies, formats and cost models of their own.

Those named by the key ``plugins`` are imported before a config is read. Those that an installed package names by an
entry point of the group ``hermes_flow.plugins`` are imported when a name is asked for that nobody has registered:
looking for them takes longer than most things a run does.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from hermes_flow.config.convert import shown
from hermes_flow.errors import ConfigError, HermesFlowError

GROUP = "hermes_flow.plugins"


def load_plugins(named: Any) -> None:
    """Import the modules that the key ``plugins`` names, each once in a process; raises ConfigError at that key.

    A name that ends in ``.py`` is a file, from the working directory; any other is a module that Python can import.
    """
    if named is None:
        return
    if not isinstance(named, list) or not all(isinstance(name, str) for name in named):
        raise ConfigError("plugins", f"{shown(named)}; expected a list of modules or of .py files")
    for name in named:
        if name.endswith(".py"):
            _load_file(Path(name).expanduser().resolve(), name)
        else:
            _load_module(name)


@functools.cache
def load_entry_points() -> None:
    """Import what installed packages offer, once in a process; raises HermesFlowError where one cannot be."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as error:
            owner = entry.dist.name if entry.dist is not None else "an installed package"
            raise HermesFlowError(f"the plug-in {entry.value} of {owner}: {_said(error)}") from None


@functools.cache
def _load_module(name: str) -> None:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError("plugins", f"{name}: {_said(error)}") from None
        raise ConfigError(
            "plugins",
            f"no module is called {name!r}; expected one that can be imported, or the path of a .py file",
        ) from None
    except Exception as error:
        raise ConfigError("plugins", f"{name}: {_said(error)}") from None


@functools.cache
def _load_file(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise ConfigError("plugins", f"there is no file {name} in {Path.cwd()}")
    module = f"hermes_flow_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded  # dataclasses look their module up
    try:
        spec.loader.exec_module(loaded)
    except Exception as error:
        del sys.modules[module]
        raise ConfigError("plugins", f"{name}: {_said(error)}") from None
    return loaded


def _said(error: Exception) -> str:
    """Return an error of somebody else's module with its line that led there."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}:{error.lineno}: {error.msg}"
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename
    ]
    where = f"{frames[1].filename}:{frames[1].lineno}: " if len(frames) > 1 else ""
    return f"{where}{type(error).__name__}: {error}"
