"""Draws the adapters that requests ask for, and keeps their prompts apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hermes_flow.config.adapters import DrawnAdapters
from hermes_flow.program.prefixes import Prefixes, SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.program.same_bits import power
from hermes_flow.program.units import Ints
from hermes_flow.workload.streams import stream


def drawn_adapters(given: DrawnAdapters | None, count: int, seed: int) -> Ints | None:
    """Draw which adapter each of ``count`` requests or sessions asks for, -1 for none; None if there are none."""
    if given is None:
        return None
    rng = stream(seed, "adapters")
    none = rng.random(count) < given.base_share
    upto = np.cumsum(power(np.arange(1, given.count + 1), -given.skew))
    drawn = np.minimum(np.searchsorted(upto, rng.random(count) * upto[-1], side="right"), given.count - 1)
    return np.where(none, -1, drawn).astype(np.int64)


def adapter_names(given: DrawnAdapters | None) -> tuple[str, ...]:
    """Return the names of the drawn adapters, the most frequent one first."""
    return () if given is None else tuple(f"adapter_{number}" for number in range(1, given.count + 1))


def with_apart_prefixes(requests: Requests) -> Requests:
    """Return the requests such that prompts for different adapters share no beginning: their KV is not the same."""
    prefixes, adapter = requests.prefixes, requests.adapter
    if prefixes is None or adapter is None:
        return requests
    if isinstance(prefixes, Prefixes):
        own = np.repeat(adapter, np.diff(prefixes.offsets))
        return replace(requests, prefixes=replace(prefixes, ids=_pairs(prefixes.ids, own)))
    assert isinstance(prefixes, SessionPrefixes)
    apart = replace(
        prefixes,
        session=_pairs(prefixes.session, adapter),
        system_prompt=_pairs(prefixes.system_prompt, adapter),
    )
    return replace(requests, prefixes=apart)


def _pairs(first: Ints, second: Ints) -> Ints:
    """Return a number for each pair, equal for equal pairs."""
    _, numbers = np.unique(np.stack((first, second)), axis=1, return_inverse=True)
    return np.asarray(numbers, dtype=np.int64).reshape(-1)
