"""Fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from pathlib import Path

# Threads for matrices as small as ours wait for each other most of the time. It is read when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# No deadlines: a machine that does other work is slow, which is no fault of the code. A run by default repeats the
# same examples on every machine and keeps no database of failures, so that a failure can be repeated by its name
# alone. ``--hypothesis-profile=search`` draws new examples each time and remembers which of them failed.
settings.register_profile("repeatable", deadline=None, derandomize=True, database=None, print_blob=True)
settings.register_profile("search", deadline=None, derandomize=False, print_blob=True)
settings.load_profile("repeatable")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from what lives as long as the tests: modules, test functions, the catalogs.

    It would look through them again and again, which takes a sixth of the time of the tests. It also looks for
    garbage after 20,000 new objects, not after 700.
    """
    gc.disable()
    gc.set_threshold(20_000)
    try:
        collected = yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()
    return collected


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of measured data kept beside the repository (HERMES_FLOW_DATA overrides the place)."""
    folder = Path(os.environ.get("HERMES_FLOW_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"measured data not found at {folder}")
    return folder
