"""The registry of verbs, and their interface to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from hermes_flow.config.registry import Registry
from hermes_flow.config.schema import Config


class Verb(Protocol):
    """One verb of the command; its fields are the keys of its ``task`` config.

    A verb that writes into another folder than that of its run has a class attribute ``elsewhere`` that is true, and
    names its files in the text that it returns.
    """

    def run(self, config: Config, folder: Path) -> str:
        """Run the verb, write its results into ``folder``, and return the text to print."""


verbs: Registry[Verb] = Registry("task", tag="kind", package=__package__)
