"""The registry of verbs, and their interface to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Config


class Verb(Protocol):
    """One thing the command can do; its fields are the keys of its ``task`` config."""

    def run(self, config: Config, folder: Path) -> str:
        """Do it, write what it makes into ``folder``, and return what to print."""


verbs: Registry[Verb] = Registry("task", tag="kind", package=__package__)
