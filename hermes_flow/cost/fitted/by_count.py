"""The times of pure decode steps by their number of sequences, where a log has enough steps of a number.

Kernels are made for certain sizes: a step of two sequences may take longer than one of three, and one of seven much
longer than one of six. A convex line has no room for this.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hermes_flow.cost.fitted.least_squares import Floats
from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.cost.fitted.steps import Steps

_ENOUGH = 20  # rows of a number of sequences; at so many, half of what is left over is believed
_MOST = 64  # numbers in a table


def by_count(fit: StepFit, steps: Steps, found_us: Floats, line_us: Floats) -> StepFit:
    """Return the fit with what decode steps of each number of sequences take beyond it, of as many as there are.

    ``found_us`` are the fit's times of the steps, ``line_us`` those of its ``decodes`` for 0, 1, … sequences. The fit
    must have ``per_beside_us``, so that steps with prompts stay as they are.
    """
    assert steps.rows is not None
    assert steps.mean_us is not None
    alone = steps.prefill_tokens <= 0
    count = steps.decodes[alone].astype(np.int64)
    rows = np.bincount(count, steps.rows[alone])
    left = np.bincount(count, (steps.rows * (steps.mean_us - found_us))[alone])
    known = np.flatnonzero(rows >= _ENOUGH)[:_MOST]
    if len(known) < 2:
        return fit
    beyond = left[known] / (rows[known] + _ENOUGH)
    sizes = np.unique(np.concatenate([[1], known, np.rint(fit.decodes), [known[-1] + 1]])).astype(np.int64)
    sizes = sizes[sizes < len(line_us)]
    times = line_us[sizes] + np.interp(sizes, known, beyond)
    lowest = min(
        0.0, float(times.min())
    )  # times are never negative: steps without prompts have less in common
    if fit.step_us + lowest < 0.0:
        return fit
    return replace(
        fit,
        step_us=fit.step_us + lowest,
        prefill_us=fit.prefill_us - lowest,
        decodes=tuple(sizes.astype(float).tolist()),
        decodes_us=tuple((times - lowest).tolist()),
    )
