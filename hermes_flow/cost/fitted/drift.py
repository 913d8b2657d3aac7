"""The speed of a machine over the time of a log: how much longer its steps took than a fit of all of them says."""

from __future__ import annotations

import numpy as np

from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.cost.fitted.step_form import fit_steps, fitted_us
from hermes_flow.cost.fitted.steps import Floats, Steps
from hermes_flow.cost.fitted.table_rows import Rows, as_steps
from hermes_flow.errors import HermesFlowError
from hermes_flow.program.units import US_PER_S

_USUAL = 0.02  # of a window: so much time at the usual speed is added to what was measured in it
_MOST_WINDOWS = 100_000


def fit_with_drift(
    rows: Rows, starts_us: Floats, form: str, window_s: float
) -> tuple[StepFit, tuple[float, ...]]:
    """Return the fit of steps at the machine's usual speed, and the factor on them in each window of the log.

    The windows begin at time 0 of the log's clock. The machine is measured by its own work: the time of all steps
    that begin in a window over that of the fit. The fit is then made again without these factors. Raises
    HermesFlowError for too few steps, and for a log whose clock does not begin with the run.
    """
    last_s = float(starts_us.max()) / US_PER_S
    if last_s > _MOST_WINDOWS * window_s:
        raise HermesFlowError(
            f"the last step begins at {last_s:,.0f} s, beyond {_MOST_WINDOWS:,} windows of {window_s:g} s; expected "
            "times that count from the beginning of the run"
        )
    first = fit_steps(as_steps(_copy(rows)), form)
    windows = (starts_us // (window_s * US_PER_S)).astype(np.int64)
    known = _factors(first, rows, windows, window_s)
    level = rows.columns["time_us"] / known[windows]
    fit = fit_steps(as_steps(_copy(rows, level)), form)
    return fit, tuple(_factors(fit, rows, windows, window_s).tolist())


def _copy(rows: Rows, times_us: Floats | None = None) -> Rows:
    times = rows.columns["time_us"] if times_us is None else times_us
    return Rows(rows.columns | {"time_us": times}, rows.row, dict(rows.faults))


def _factors(
    fit: StepFit, rows: Rows, windows: np.ndarray[tuple[int], np.dtype[np.int64]], window_s: float
) -> Floats:
    """Return measured over fitted time by window; 1 where nothing was measured."""
    count = int(windows.max()) + 1
    usual = _USUAL * window_s * US_PER_S
    measured = np.bincount(windows, rows.columns["time_us"], count)
    fitted = np.bincount(windows, fitted_us(fit, _single(rows)), count)
    factors: Floats = (measured + usual) / (fitted + usual)
    return factors


def _single(rows: Rows) -> Steps:
    """Return a step for each row."""
    columns = rows.columns
    count = len(rows)
    return Steps(
        prefill_tokens=columns["prefill_tokens"],
        prefill_context=columns["prefill_context"],
        prefills=np.where(columns["prefill_tokens"] > 0, np.maximum(columns["prefills"], 1.0), 0.0),
        decodes=columns["decodes"],
        decode_context=columns["decode_context"],
        time_us=columns["time_us"],
        shape=np.zeros(count, dtype=np.int64),
        label=("",) * count,
        exact_pairs=columns.get("prefill_pairs"),
    )
