"""Ctrl-C reaches Python also after Polars is imported, which takes the signal over."""

from __future__ import annotations

import subprocess
import sys

import pytest

HANDLER = """
import ctypes

def handler():
    action = (ctypes.c_ubyte * 256)()
    ctypes.CDLL(None).sigaction(2, None, action)
    return bytes(action[:8])

before = handler()
import polars
taken = handler()
from hermes_flow.runs.stopping import keep_interrupts
keep_interrupts()
print(taken != before, handler() == before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the handler of C is read as Linux keeps it")
def test_the_handler_is_pythons_again_after_polars_has_taken_the_signal() -> None:
    found = subprocess.run([sys.executable, "-c", HANDLER], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
