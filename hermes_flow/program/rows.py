"""Cuts a program, or what was recorded of it, to a range of its requests; columns become views of the whole."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

import numpy as np

from hermes_flow.program.program import Program

T = TypeVar("T")


def program_rows(program: Program, first: int, last: int) -> Program:
    """Return the program with the requests ``first`` … ``last − 1`` alone."""
    count = len(program.requests)
    return replace(
        program,
        requests=column_rows(program.requests, count, first, last),
        ops=tuple(column_rows(op, count, first, last) for op in program.ops),
        rejected=entries_within(program.rejected, first, last),
        sites=None if program.sites is None else column_rows(program.sites, count, first, last),
    )


def column_rows(whole: T, count: int, first: int, last: int) -> T:
    """Return a dataclass with a range of rows in place of each column of ``count``, also in its work and edges."""
    changed: dict[str, Any] = {}
    for field in fields(whole):  # type: ignore[arg-type]
        value = getattr(whole, field.name)
        if isinstance(value, np.ndarray) and len(value) == count:
            changed[field.name] = value[first:last]
        elif field.name == "data":
            changed["data"] = tuple(column_rows(edge, count, first, last) for edge in value)
        elif field.name in ("work", "kv") and is_dataclass(value):
            changed[field.name] = column_rows(value, count, first, last)
    return replace(whole, **changed) if changed else whole  # type: ignore[type-var]


def entries_within(by_request: dict[int, Any], first: int, last: int) -> dict[int, Any]:
    """Return the entries of requests of a range, which are counted from its first one."""
    return {request - first: value for request, value in by_request.items() if first <= request < last}
