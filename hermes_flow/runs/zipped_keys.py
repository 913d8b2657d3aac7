"""Makes the jobs of a sweep: every combination of the keys' values, where keys that are zipped vary together."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from hermes_flow.errors import ConfigError, did_you_mean


def zipped_groups(given: object) -> list[list[str]]:
    """Return ``sweep.zip`` as groups of keys; it is a list of keys, or a list of such lists.

    Raises ConfigError for anything else, for a group of one key, and for a key in two groups.
    """
    key = "sweep.zip"
    expected = "expected keys, as in [model,hardware], or lists of keys, as in [[a,b],[c,d]]"
    if given is None:
        return []
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(key, f"{given!r} is not a list; {expected}")
    groups = [given] if given and all(isinstance(entry, str) for entry in given) else list(given)
    checked: list[list[str]] = []
    for group in groups:
        if not isinstance(group, Sequence) or not all(isinstance(entry, str) and entry for entry in group):
            raise ConfigError(key, f"{group!r} is not a list of keys; {expected}")
        if len(group) < 2:
            raise ConfigError(
                key, f"{group[0] if group else group!r} is alone; two keys or more vary together"
            )
        checked.append([entry.lstrip("+") for entry in group])
    every = [entry for group in checked for entry in group]
    for entry in every:
        if every.count(entry) > 1:
            raise ConfigError(key, f"{entry!r} is there {every.count(entry)} times; expected once")
    return checked


def combined(values: Mapping[str, Sequence[str]], groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Return the overrides of every job; ``values`` has the overrides that each key takes.

    The last key varies first, and a group stands where its first key stands. Raises ConfigError where a group has a
    key that does not vary, or keys with different numbers of values.
    """
    for group in groups:
        for key in group:
            if key not in values:
                swept = [name for name, texts in values.items() if len(texts) > 1]
                raise ConfigError("sweep.zip", f"{key!r} has no values{did_you_mean(key, swept)}")
        counts = {key: len(values[key]) for key in group}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key} has {count}" for key, count in counts.items())
            raise ConfigError("sweep.zip", f"keys that vary together need equally many values, but {listed}")
    group_of = {key: tuple(group) for group in groups for key in group}
    axes: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for key in values:
        keys = group_of.get(key, (key,))
        axes[keys] = [
            dict(zip(keys, texts, strict=True)) for texts in zip(*(values[k] for k in keys), strict=True)
        ]
    jobs = []
    for points in itertools.product(*axes.values()):
        chosen = {key: text for point in points for key, text in point.items()}
        jobs.append(tuple(chosen[key] for key in values))
    return jobs
