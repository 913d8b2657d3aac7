"""Says in words how far the mean latencies of a run may be from those of the real system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.metrics.error_bars.bars import NONE
from hermes_flow.metrics.number_text import counted, duration, percent

_TITLES = {"tpot": "TPOT", "ttft": "TTFT", "e2e": "E2E"}
_WHOLE = 0.995  # of the time: a bar that covers this much covers all


def error_text(summary: Mapping[str, Any]) -> str:
    """Return the error bars of a run as one sentence; empty for a summary without any."""
    error = summary.get("error")
    if not error:
        return ""
    known = {metric: error[f"{metric}_s"] for metric in _TITLES if error[f"{metric}_s"]["low"] is not None}
    if not known:
        return str(error["tpot_s"]["kind"]).replace(NONE, "none", 1)
    parts = [
        f"{_TITLES[metric]} {_bar(bar, summary[f'{metric}_s']['mean'])}" for metric, bar in known.items()
    ]
    first = next(iter(known.values()))
    runs = counted(first["runs"], "left-out run")
    text = f"mean {', '.join(parts)}: {first['kind']} (four of five of {runs})"
    partly = [
        f"{percent(bar['covers'])} of {_TITLES[metric]}"
        for metric, bar in known.items()
        if bar["covers"] < _WHOLE
    ]
    if partly:
        text += f"; covers the time in LLM clients, {' and '.join(partly)}"
    if len(known) < len(_TITLES) and error["e2e_s"]["kind"].startswith(NONE):
        text += f"; none for TTFT and E2E, {error['e2e_s']['kind'].removeprefix(f'{NONE}: ')}"
    return text


def bar_text(summary: Mapping[str, Any], metric: str) -> str:
    """Return the error bar of one metric, as in "7.6 ms to 8.5 ms"; empty where there is none."""
    bar = (summary.get("error") or {}).get(f"{metric}_s")
    if bar is None or bar["low"] is None:
        return ""
    return f"{duration(bar['low'])} to {duration(bar['high'])}"


def _bar(bar: Mapping[str, Any], mean: float) -> str:
    """Return a mean with its bar: as ± a share where both sides are about alike, else as two ends."""
    below, above = 1.0 - bar["low"] / mean, bar["high"] / mean - 1.0
    if below > 0 and above > 0 and abs(above - below) < 0.15 * (above + below) and above < 0.5:
        return f"{duration(mean)} ± {percent((below + above) / 2)}"
    return f"{duration(bar['low'])} to {duration(bar['high'])}"
