"""Writes the answer of a plan as text for the terminal."""

from __future__ import annotations

import textwrap

from hermes_flow.config.schema import Config
from hermes_flow.metrics.number_text import digits, dollars, duration, percent
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.planning.day import IGNORED, DayPlan
from hermes_flow.planning.plan import Design, Plan, overrides_of

_WIDTH = 80
_SHOWN = 10


def plan_text(found: Plan, config: Config) -> str:
    """Return the answer as text of at most 80 columns: the best design, the ranked and the excluded ones."""
    lines = textwrap.wrap(_advice(found, config), _WIDTH)
    if found.best is not None:
        lines += ["", *_wrapped(f"Run it: hermes-flow {overrides_of(found.best)}")]
        lines += ["", *_table(found)]
    lines += _cheaper_misses(found)
    lines += _ruled_out(found)
    for note in found.notes:
        lines += ["", *_wrapped(f"note: {note}")]
    return "\n".join(lines)


def day_text(day: DayPlan) -> str:
    """Return the plan of a day as text: a line for every hour, and what it costs."""
    lines = [f"{'hour':>4} {'requests/s':>11} {'$/hour':>8}  design"]
    for hour, rate in enumerate(day.rates_per_s):
        best = day.plans[rate].best
        price = None if best is None else best.usd_per_hour
        name = "no design that was tried meets the SLO" if best is None else _what(best)
        lines.append(f"{hour:>4} {digits(rate):>11} {digits(price):>8}  {name}")
    text = "The price of these hours is not known."
    if day.usd is not None and day.usd_at_peak:
        saved = percent(max(0.0, 1 - day.usd / day.usd_at_peak))
        text = f"These hours cost {dollars(day.usd)}. The design of the busiest hour would cost "
        text += f"{dollars(day.usd_at_peak)} for all of them; planning each hour saves up to {saved}."
    return "\n".join([*lines, "", *_wrapped(text), "", *_wrapped(f"note: {IGNORED}")])


def _advice(found: Plan, config: Config) -> str:
    best = found.best
    if best is None:
        return f"No design that was tried meets SLO {config.slo.name} at this load."
    text = f"Buy {_what(best)}: "
    price = best.usd_per_hour
    text += "no price is known for it" if price is None else f"{dollars(price)} per hour"
    text += f". It meets SLO {config.slo.name}"
    if best.headroom is not None:
        text += f", and its load can grow by {percent(best.headroom)}"
    rest = [design for design in found.ranked[1:] if design.usd_per_hour is not None]
    if price and rest:
        second = rest[0].usd_per_hour or 0.0
        compared = (
            "costs the same" if second <= price * 1.0005 else f"costs {percent(second / price - 1)} more"
        )
        text += f". The next design, {_what(rest[0])}, {compared}"
    return text + "."


def _what(design: Design) -> str:
    """Return a design as a buyer says it: 8 × h100_sxm as 2 clients of TP4."""
    clients, family = design.sized.clients, design.family
    assert clients is not None
    parallel = f"TP{family.tensor_parallel}"
    if family.pipeline_parallel > 1:
        parallel += f" × PP{family.pipeline_parallel}"
    if family.layout == "disaggregated":
        shape = f"{clients.prefill} prefill and {clients.decode} decode clients of {parallel}"
    else:
        shape = f"{clients.prefill} client{'' if clients.prefill == 1 else 's'} of {parallel}"
    return f"{design.accelerators} × {family.hardware.name} as {shape}"


def _kind(design: Design) -> str:
    family = design.family
    return f"{family.hardware.name} TP{family.tensor_parallel} {family.layout}"


def _table(found: Plan) -> list[str]:
    head = f"{'rank':>4} {'$/hour':>7}  {'design':<34} {'TTFT p99':>9} {'TPOT p90':>9} {'more load':>9}"
    lines = [head]
    for rank, design in enumerate(found.ranked[:_SHOWN], 1):
        summary, clients, family = design.summary or {}, design.sized.clients, design.family
        assert clients is not None
        count = f"{clients.prefill}P+{clients.decode}D" if clients.decode else f"{clients.prefill}"
        name = f"{design.accelerators} × {family.hardware.name}, {count} × TP{family.tensor_parallel}"
        price = "–" if design.usd_per_hour is None else digits(design.usd_per_hour)
        more = "–" if design.headroom is None else percent(design.headroom)
        times = f"{duration(summary['ttft_s']['p99']):>9} {duration(summary['tpot_s']['p90']):>9}"
        lines.append(f"{rank:>4} {price:>7}  {name:<34} {times} {more:>9}")
    if len(found.ranked) > _SHOWN:
        lines.append(f"      and {len(found.ranked) - _SHOWN} more: see plan.parquet")
    return lines


def _cheaper_misses(found: Plan) -> list[str]:
    """Return a line for each hardware whose largest smaller design would be cheaper, with what it misses."""
    best = None if found.best is None else found.best.usd_per_hour
    if not best:
        return []
    cheaper: dict[str, tuple[float, str]] = {}
    for design in (*found.ranked, *found.ruled_out):
        smaller, family = design.sized.smaller, design.family
        if smaller is None or family.usd_per_hour is None:
            continue
        price = smaller.total * family.usd_per_hour
        if price < best * 0.9995 and price > cheaper.get(family.hardware.name, (0.0, ""))[0]:
            devices = smaller.total * family.devices
            saved, missed = percent(1 - price / best), ", ".join(map(bound_label, design.sized.missing))
            cheaper[family.hardware.name] = (
                price,
                f"{devices} × {family.hardware.name} (TP{family.tensor_parallel}, {family.layout}) is {saved} "
                f"cheaper and misses {missed}",
            )
    if not cheaper:
        return []
    lines = ["", "Cheaper designs miss the SLO:"]
    for _, text in sorted(cheaper.values(), reverse=True):
        lines += _wrapped(f"  {text}", "    ")
    return lines


def _ruled_out(found: Plan) -> list[str]:
    """Return why the other kinds of designs cannot meet the SLO, those whose weights do not fit in one line."""
    if not found.ruled_out:
        return []
    lines = ["", "Ruled out:"]
    problems = [(design, design.sized.problem or "") for design in found.ruled_out]
    unfit = [_kind(design) for design, problem in problems if ": the weights of " in problem]
    if unfit:
        lines += _wrapped(f"  The weights do not fit: {'; '.join(unfit)}.", "    ")
    rest = [(design, problem) for design, problem in problems if ": the weights of " not in problem]
    for design, problem in rest[:_SHOWN]:
        lines += _wrapped(f"  {_kind(design)}: {problem}.", "    ")
    if len(rest) > _SHOWN:
        lines.append(f"  {len(rest) - _SHOWN} more: see plan.parquet")
    return lines


def _wrapped(text: str, hanging: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, _WIDTH, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
    )
