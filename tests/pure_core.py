"""Marks tests that replace a function inside the core, which compiled modules call without looking it up."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

_found = find_spec("hermes_flow.network.fabric")

needs_pure_core = pytest.mark.skipif(
    _found is not None and not str(_found.origin).endswith(".py"),
    reason="a compiled module calls its own functions directly, so the test cannot watch them",
)
