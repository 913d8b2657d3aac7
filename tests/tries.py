"""How many random cases a test tries: some of them by default, all with HERMES_FLOW_TRIES=all (nox -s thorough)."""

from __future__ import annotations

import os

THOROUGH = os.environ.get("HERMES_FLOW_TRIES") == "all"


def tries(some: int, of: int) -> int:
    """Return ``of`` in a thorough run, else ``some``: enough to meet every kind of case that the test asks for."""
    return of if THOROUGH else some
