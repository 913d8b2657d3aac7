"""Says which runs have costs and energies that can be compared: those in which the same pools do not count.

Hosts without a price count as free, and hosts and stores without known power draw nothing. So the cost or the energy
of a run with such a pool does not compare with that of a run in which something that counts does the same work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def comparable(prices: Sequence[float | None], unpriced: Sequence[Iterable[str]]) -> list[bool]:
    """Return for each run whether its cost, or its energy, compares with that of the others.

    ``prices`` are per hour, None where unknown; ``unpriced`` are the names of the pools without a price. For energies
    these are the joules, and the pools of unknown power. The runs whose names are those of most runs compare with
    each other, the first ones if two groups are equally large.
    """
    sets = [frozenset(names) for names in unpriced]
    known = Counter(names for names, price in zip(sets, prices, strict=True) if price is not None)
    if not known:
        return [False] * len(sets)
    usual = known.most_common(1)[0][0]
    return [price is not None and names == usual for names, price in zip(sets, prices, strict=True)]


def is_cost(key: str) -> bool:
    """Tell whether a figure of a summary is in dollars, or in tokens per dollar."""
    return key.startswith("cost.") and "usd" in key


def is_energy(key: str) -> bool:
    """Tell whether a figure of a summary is in joules."""
    return key.startswith("energy.") and key.rpartition(".")[2] in _JOULES


_JOULES = ("total_j", "j_per_output_token", "idle_j")


def without_unlike_costs(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Return the table of a sweep without the costs that do not compare, and the rows that had them."""
    return _without_unlike(frame, "cost.usd_per_hour", "cost.unpriced", is_cost)


def without_unlike_energies(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Return the table of a sweep without the energies that do not compare, and the rows that had them."""
    return _without_unlike(frame, "energy.total_j", "energy.unmetered", is_energy)


def _without_unlike(
    frame: pl.DataFrame, known: str, uncounted: str, belongs: Callable[[str], bool]
) -> tuple[pl.DataFrame, list[int]]:
    import polars as pl

    if known not in frame.columns:
        return frame, []
    pools = frame[uncounted] if uncounted in frame.columns else [None] * len(frame)
    alike = comparable(frame[known].to_list(), [(names or "").split("; ") for names in pools])
    rows = [row for row, value in enumerate(frame[known]) if value is not None and not alike[row]]
    if not rows:
        return frame, []
    kept = pl.Series(alike)
    columns = [name for name in frame.columns if belongs(name)]
    return frame.with_columns(pl.when(kept).then(pl.col(name)).alias(name) for name in columns), rows
