"""Names what Polars raises for a file that it cannot read."""

from __future__ import annotations


def unreadable() -> tuple[type[BaseException], ...]:
    """Return these errors. A panic of Polars' Rust code, at some damaged files, is no ``Exception``."""
    from polars.exceptions import PanicException, PolarsError

    return PolarsError, PanicException, OSError
