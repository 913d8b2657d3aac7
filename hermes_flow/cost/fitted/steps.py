"""Measured steps: what each step computed and how long it took."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.same_bits import mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]

KINDS = ("prefill", "decode", "mixed")


@dataclass(frozen=True, slots=True)
class Steps:
    """One entry per measured step; ``time_us`` is the median over its repetitions.

    A step prefills ``prefill_tokens`` tokens of ``prefills`` prompts after ``prefill_context`` computed ones, and
    decodes ``decodes`` sequences over ``decode_context`` computed tokens. Steps of one ``shape`` are held out
    together; ``label`` names the step for people. Of a log, ``rows`` are the rows that each entry stands for and
    ``mean_us`` their mean time; both are None for tables of shapes. ``exact_pairs``
    are the query-key pairs of the prefills, None where the table does not have them.
    """

    prefill_tokens: Floats
    prefill_context: Floats
    prefills: Floats
    decodes: Floats
    decode_context: Floats
    time_us: Floats
    shape: Ints
    label: tuple[str, ...]
    rows: Floats | None = None
    mean_us: Floats | None = None
    exact_pairs: Floats | None = None

    def __len__(self) -> int:
        return len(self.time_us)

    @property
    def tokens(self) -> Floats:
        """All tokens of a step."""
        return self.prefill_tokens + self.decodes

    @property
    def pairs(self) -> Floats:
        """Query-key pairs of the prefills; where they are not known, for prompts of equal length."""
        if self.exact_pairs is not None:
            return self.exact_pairs
        context = self.prefill_context + 0.5 * self.prefill_tokens
        return self.prefill_tokens * context / np.maximum(self.prefills, 1.0)

    @property
    def kind(self) -> Ints:
        """0: prefills only, 1: decodes only, 2: both."""
        both = (self.prefill_tokens > 0) & (self.decodes > 0)
        found: Ints = np.where(both, 2, np.where(self.prefill_tokens > 0, 0, 1))
        return found

    def where(self, mask: Mask) -> Steps:
        """Return the steps of the mask."""
        chosen = np.flatnonzero(mask)
        return Steps(
            self.prefill_tokens[mask],
            self.prefill_context[mask],
            self.prefills[mask],
            self.decodes[mask],
            self.decode_context[mask],
            self.time_us[mask],
            self.shape[mask],
            tuple(self.label[index] for index in chosen),
            None if self.rows is None else self.rows[mask],
            None if self.mean_us is None else self.mean_us[mask],
            None if self.exact_pairs is None else self.exact_pairs[mask],
        )


@dataclass(frozen=True, slots=True)
class Errors:
    """Relative errors of a fit by kind of step: how many steps, the mean size, and the worst one."""

    steps: dict[str, int]
    mean: dict[str, float]
    worst: dict[str, tuple[float, str]]

    @classmethod
    def of(cls, found: Floats, steps: Steps) -> Errors:
        """Compare times found with those measured."""
        relative = found / steps.time_us - 1.0
        counts, means, worst = {}, {}, {}
        for index, kind in enumerate(KINDS):
            rows = np.flatnonzero(steps.kind == index)
            if len(rows):
                counts[kind] = len(rows)
                means[kind] = mean(np.abs(relative[rows]))
                row = int(rows[np.argmax(np.abs(relative[rows]))])
                worst[kind] = (float(relative[row]), steps.label[row])
        return cls(counts, means, worst)

    def __str__(self) -> str:
        return "; ".join(
            f"{kind} {100 * mean:.1f} % off on average, worst {100 * self.worst[kind][0]:+.0f} % "
            f"({self.worst[kind][1]}), of {self.steps[kind]:,}"
            for kind, mean in self.mean.items()
        )
