"""What the command does: one module per verb, found by its registered name."""

from __future__ import annotations

from hermes_flow.tasks.verb import Verb, verbs

__all__ = ["Verb", "verbs"]
