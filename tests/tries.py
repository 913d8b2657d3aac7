"""How many random cases a test tries: some of them by default, all with HERMES_FLOW_TRIES=all (nox -s thorough)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

THOROUGH = os.environ.get("HERMES_FLOW_TRIES") == "all"


def tries(some: int, of: int) -> int:
    """Return ``of`` in a thorough run, else ``some``: enough to meet every kind of case that the test asks for."""
    return of if THOROUGH else some


def some_of(recorded: Sequence[T], one_in: int) -> Sequence[T]:
    """Return one in ``one_in`` of recorded cases, and all of them in a thorough run and in ``nox -s validate``."""
    return recorded if THOROUGH else recorded[::one_in]
