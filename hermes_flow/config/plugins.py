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
from pathlib import Path
from types import ModuleType
from typing import Any

from hermes_flow.config.convert import shown
from hermes_flow.config.plugin_faults import import_fault, mark_plugin
from hermes_flow.errors import ConfigError

GROUP = "hermes_flow.plugins"


def load_plugins(named: Any) -> None:
    """Import the modules that the key ``plugins`` names, each once in a process.

    Raises ConfigError at that key where there is no such module, PluginError where the module fails.

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
    """Import the plug-ins of installed packages, once in a process; raises PluginError if one cannot be imported."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        owner = entry.dist.name if entry.dist is not None else "an installed package"
        what = f"the plug-in {entry.value} of {owner}"
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            raise import_fault(error, what) from error
        _mark(sys.modules[entry.module], what)


@functools.cache
def _load_module(name: str) -> None:
    what = f"the plug-in {name}"
    try:
        loaded = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise import_fault(error, what) from error
        raise ConfigError(
            "plugins",
            f"no module is called {name!r}; expected one that can be imported, or the path of a .py file",
        ) from None
    except (Exception, SystemExit) as error:
        raise import_fault(error, what) from error
    _mark(loaded, what)


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
    except (Exception, SystemExit) as error:
        del sys.modules[module]
        raise import_fault(error, f"the plug-in {name}") from error
    _mark(loaded, f"the plug-in {name}")
    return loaded


def _mark(module: ModuleType, what: str) -> None:
    """Let errors of the module's code, outside of what it registers, name the plug-in."""
    mark_plugin(module.__dict__, what)
