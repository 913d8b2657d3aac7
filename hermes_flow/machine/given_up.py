"""Leaves out of a record what would have happened to requests after they were given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord


def until_given_up(record: OpRecord, given_up_ns: Mapping[int, int]) -> OpRecord:
    """Return the record of an op with only those instants of requests that come no later than ``given_up_ns``."""
    requests = np.array(list(given_up_ns), dtype=np.int64)
    until = np.array(list(given_up_ns.values()), dtype=np.int64)

    def known(column: Ints) -> Ints:
        column = column.copy()
        own = column[requests]
        column[requests] = np.where(own > until, -1, own)
        return column

    return replace(
        record,
        start_ns=known(record.start_ns),
        finish_ns=known(record.finish_ns),
        first_ns=None if record.first_ns is None else known(record.first_ns),
    )
