"""Random streams by name, so that a change to one purpose does not change the draws of another."""

from __future__ import annotations

import zlib

import numpy as np

from hermes_flow.errors import ConfigError


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of ``purpose`` ("arrivals", "input_lengths", …) under ``seed``.

    Equal arguments give equal draws, on every platform and in every order of calls. Raises ConfigError
    where ``seed`` is negative.
    """
    if seed < 0:
        raise ConfigError("workload.seed", f"{seed} is negative; expected a whole number from 0")
    # crc32 rather than hash(): the latter differs from one process to the next.
    key = zlib.crc32(purpose.encode())
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(key,))))
