"""Figures of a summary by their dotted names: what they are called, their unit, and which direction is better.

One declared list serves sweeps, comparisons and their pages. A figure that no entry names is shown under its own
name, and neither direction counts as better.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hermes_flow.metrics.number_text import UNKNOWN, digits, dollars, duration, percent

Better = Literal["low", "high"]
Unit = Literal["s", "usd", "share", "number", "text"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure of the summary: its dotted name, its name for people, its unit, and which direction is better."""

    key: str
    title: str
    unit: Unit = "number"
    better: Better | None = None

    def text(self, value: Any) -> str:
        """Return a value for people, with its unit."""
        if value is None:
            return UNKNOWN
        if isinstance(value, bool):
            return "yes" if value else "no"
        if not isinstance(value, int | float):
            return str(value)
        if self.unit == "s":
            return duration(value) if value >= 0 else f"−{duration(-value)}"
        if self.unit == "usd":
            return dollars(value) if value >= 0 else f"−{dollars(-value)}"
        return percent(value) if self.unit == "share" and 0 <= value <= 1 else digits(value)


# Patterns of whole keys; the first that matches counts. {} in a title stands for what the groups match.
_KNOWN: tuple[tuple[str, str, Unit, Better | None], ...] = (
    (r"(ttft|tpot|itl|e2e)_s\.(\w+)", "{} {}", "s", "low"),
    (r"phases\.(\d+)\.(ttft|tpot|e2e)_s\.(\w+)", "phase {}: {} {}", "s", "low"),
    (r"phases\.(\d+)\.slo\.attainment", "phase {}: within SLO", "share", "high"),
    (r"phases\.(\d+)\.cost\.usd_per_million_output_tokens", "phase {}: $ per million tokens", "usd", "low"),
    (r"throughput\.requests_per_s", "requests/s", "number", "high"),
    (r"throughput\.output_tokens_per_s", "output tokens/s", "number", "high"),
    (r"slo\.attainment", "within SLO", "share", "high"),
    (r"slo\.goodput_requests_per_s", "goodput (requests/s)", "number", "high"),
    (r"slo\.bounds\.(.+)\.value_s", "{} (bound of the SLO)", "s", "low"),
    (r"slo\.bounds\.attainment\.value_share", "within all limits of the SLO", "share", "high"),
    (r"slo\.bounds\.(.+)\.attainment\.value_share", "{}: within all limits of the SLO", "share", "high"),
    (r"throughput\.answer_tokens_per_s", "answer tokens/s", "number", "high"),
    (r"throughput\.steady\.(requests|output_tokens)_per_s", "{}/s in the steady window", "number", "high"),
    (r"cost\.usd_per_hour", "$ per hour", "usd", "low"),
    (r"cost\.usd_per_million_(\w+)_tokens", "$ per million {} tokens", "usd", "low"),
    (r"cost\.usd_per_request", "$ per request", "usd", "low"),
    (r"cost\.(\w+)_tokens_per_usd", "{} tokens per $", "number", "high"),
    (r"cost\.accelerators", "accelerators", "number", "low"),
    (
        r"cost\.accelerator_hours_per_million_output_tokens",
        "accelerator-hours per million output tokens",
        "number",
        "low",
    ),
    (r"cost\.usd_by_use", "$ paid by use", "usd", "low"),
    (r"cost\.(accelerators)", "{}", "number", "low"),
    (
        r"cost\.accelerator_hours_per_million_(\w+)_tokens",
        "accelerator hours per million {} tokens",
        "number",
        "low",
    ),
    (r"energy\.total_j", "energy (J)", "number", "low"),
    (r"energy\.j_per_output_token", "J per output token", "number", "low"),
    (r"energy\.idle_j", "energy while idle (J)", "number", "low"),
    (r"why\.headroom\.load_factor", "headroom (times this load)", "number", "high"),
    (r"requests\.(failed|rejected)", "requests {}", "number", "low"),
    (r"requests\.completed", "requests completed", "number", "high"),
    (r"requests\.(\w+)", "requests {}", "number", None),
    (r"capacity\.(value|sustained)", "capacity ({})", "number", None),
    (r"stages\.(\w+)\.(\w+)_s", "{} {}", "s", "low"),
    (r"stages\.(\w+)\.share_of_e2e", "{} share of E2E", "share", None),
    (r"pools\.(\w+)\.queue_mean_s", "{} mean wait", "s", "low"),
    (r"pools\.(\w+)\.(\w+)_fraction", "{} {}", "share", None),
    (r"(\w+)\.(\w+)\.hit_share|prefix\.hit_share", "{} hit share", "share", "high"),
    (r".*(?:_share|share|_fraction)", "", "share", None),
    (r".*usd_per_hour", "", "usd", "low"),
    (r".*_s", "", "s", None),
)
_UPPER = {"ttft": "TTFT", "tpot": "TPOT", "itl": "ITL", "e2e": "E2E"}
# Figures of the simulator and not of the system that it simulates, and parts of explanations.
_OURS = ("engine.", "critical_path.", "why.causes.", "why.resource.", "why.requests")


def figure(key: str) -> Figure:
    """Return the figure of a dotted key, such as ``ttft_s.p99``."""
    for pattern, title, unit, better in _KNOWN:
        found = re.fullmatch(pattern, key)
        if found is not None:
            words = [_UPPER.get(word, word.replace("_", " ")) for word in found.groups() if word is not None]
            return Figure(key, title.format(*words) if title else key, unit, better)
    return Figure(key, key)


def flattened(summary: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Yield the leaves of a summary under dotted names; lists are left out."""
    for name, entry in summary.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        if isinstance(entry, Mapping):
            yield from flattened(entry, key)
        elif not isinstance(entry, list):
            yield key, entry


def figures_of(summary: Mapping[str, Any]) -> dict[str, float | bool]:
    """Return every number of a summary that describes the simulated system, under its dotted name."""
    return {
        key: value
        for key, value in flattened(summary)
        if isinstance(value, bool | int | float) and not key.startswith(_OURS)
    }


def slo_met(figures: Mapping[str, Any]) -> bool | None:
    """Return whether every bound of the SLO is met, from a row of flattened figures; None without bounds."""
    met = [
        value
        for key, value in figures.items()
        if re.fullmatch(r"slo\.bounds\..*\.met", key) and value is not None
    ]
    return all(met) if met else None
