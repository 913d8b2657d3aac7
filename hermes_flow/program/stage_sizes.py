"""Sizes and times of single stages, as far as a workload knows them."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints

UNKNOWN = -1


class Listing(Protocol):
    """The file that the sizes come from, for error messages."""

    @property
    def path(self) -> Path:
        """The path of the file."""

    def place(self, row: int) -> tuple[int | None, str]:
        """Return the line of the row (counted from 0), or None and words that say which row."""


@dataclass(frozen=True, slots=True)
class StageSizes:
    """One entry for each listed stage of a request: tokens and nanoseconds, UNKNOWN where they are not known.

    ``stage`` is an index of ``names``. ``instance`` counts the occurrences of the stage in the request from 0.
    ``rows`` has the row of each request in the file ``listing``.
    """

    names: tuple[str, ...]
    request: Ints
    stage: Ints
    instance: Ints
    input_tokens: Ints
    output_tokens: Ints
    duration_ns: Ints
    rows: Ints
    listing: Listing

    def reordered(self, order: Ints) -> StageSizes:
        """Return the same sizes with the requests in another order; those that ``order`` lacks are left out."""
        places = np.full(len(self.rows), UNKNOWN, dtype=np.int64)
        places[order] = np.arange(len(order), dtype=np.int64)
        request = places[self.request]
        kept = np.flatnonzero(request >= 0)
        kept = kept[np.argsort(request[kept], kind="stable")]
        return StageSizes(
            names=self.names,
            request=request[kept],
            stage=self.stage[kept],
            instance=self.instance[kept],
            input_tokens=self.input_tokens[kept],
            output_tokens=self.output_tokens[kept],
            duration_ns=self.duration_ns[kept],
            rows=self.rows[order],
            listing=self.listing,
        )
