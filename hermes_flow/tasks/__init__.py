"""What the command does: one module per verb, found by its registered name."""

from __future__ import annotations

import importlib
import pkgutil

from hermes_flow.tasks.verb import Verb, verbs

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["Verb", "verbs"]
