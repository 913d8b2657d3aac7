"""Names with shares that add up to 1, and draws of a name for each request or session."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hermes_flow.errors import ConfigError
from hermes_flow.program.units import Ints


def check_shares(shares: Mapping[str, float], key: str, entry: str = "") -> None:
    """Raise ConfigError at ``key`` unless the shares are numbers of 0 or more that add up to 1.

    The share of a name is the value of ``key.name``, or of its ``entry`` where one is given.
    """
    for name, share in shares.items():
        if not (math.isfinite(share) and share >= 0):
            place = f"{key}.{name}.{entry}" if entry else f"{key}.{name}"
            raise ConfigError(place, f"{share:g} is not valid; expected a share from 0 to 1")
    if abs(math.fsum(shares.values()) - 1.0) > 1e-9:
        listed = ", ".join(f"{share:g}" for share in shares.values())
        which = f"in {entry}, {listed}," if entry else listed
        raise ConfigError(key, f"the shares {which} do not add up to 1")


def drawn_by_share(shares: Sequence[float], count: int, rng: np.random.Generator) -> Ints:
    """Draw ``count`` places in ``shares``, each place as often as its share says."""
    upto = np.cumsum(np.array(shares, dtype=np.float64))
    places: Ints = np.searchsorted(upto, rng.random(count) * upto[-1], side="right")
    return np.minimum(places, len(shares) - 1)


def drawn_models(shares: Mapping[str, float], count: int, rng: np.random.Generator) -> Ints | None:
    """Draw the requested model of ``count`` requests from ``shares``; None if there are no shares.

    Raises ConfigError.
    """
    if not shares:
        return None
    check_shares(shares, "workload.models")
    return drawn_by_share(list(shares.values()), count, rng)
