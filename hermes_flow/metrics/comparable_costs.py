"""Says which runs have costs that can be compared: those in which the same pools have no price.

Hosts without a price count as free. So the cost of a run with such a host does not compare with the cost of a run in
which something with a price does the same work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def comparable(prices: Sequence[float | None], unpriced: Sequence[Iterable[str]]) -> list[bool]:
    """Return for each run whether its cost compares with that of the others.

    ``prices`` are per hour, None where unknown; ``unpriced`` are the names of the pools without a price. The runs
    whose names are those of most runs compare with each other, the first ones if two groups are equally large.
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


def without_unlike_costs(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[int]]:
    """Return the table of a sweep without the costs that do not compare, and the rows that had them."""
    import polars as pl

    price = "cost.usd_per_hour"
    if price not in frame.columns:
        return frame, []
    unpriced = frame["cost.unpriced"] if "cost.unpriced" in frame.columns else [None] * len(frame)
    alike = comparable(frame[price].to_list(), [(names or "").split("; ") for names in unpriced])
    rows = [row for row, price in enumerate(frame[price]) if price is not None and not alike[row]]
    if not rows:
        return frame, []
    kept = pl.Series(alike)
    costs = [name for name in frame.columns if is_cost(name)]
    return frame.with_columns(pl.when(kept).then(pl.col(name)).alias(name) for name in costs), rows
