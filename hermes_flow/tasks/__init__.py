"""The verbs of the command line. Each module is one verb, found by its registered name."""

from __future__ import annotations

from hermes_flow.tasks.verb import Verb, verbs

__all__ = ["Verb", "verbs"]
