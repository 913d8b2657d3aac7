"""Measures the error of a fit on shapes that it has not seen, leaving out each shape once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hermes_flow.cost.fitted.steps import Errors, Floats, Steps

_LONG = 1_000  # steps, from which on fewer fits have to do


def held_out(steps: Steps, predict: Callable[[Steps, Steps], Floats], folds: int = 40) -> Errors:
    """Return the errors of ``predict(known, asked)`` on steps whose shapes are not in ``known``.

    With more shapes than ``folds``, several are left out together; of long logs a tenth at a time.
    """
    if len(steps) > _LONG:
        folds = min(folds, 10)
    shapes = np.unique(steps.shape)
    fold = dict(zip(shapes.tolist(), (np.arange(len(shapes)) % folds).tolist(), strict=True))
    of_step = np.array([fold[shape] for shape in steps.shape.tolist()])
    found = np.zeros(len(steps))
    for number in np.unique(of_step).tolist():
        asked = of_step == number
        found[asked] = predict(steps.where(~asked), steps.where(asked))
    return Errors.of(found, steps)
