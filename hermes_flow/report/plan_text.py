"""Writes the answer of a plan as text for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from hermes_flow.config.schema import Config
from hermes_flow.metrics.number_text import counted, digits, dollars, duration, percent, shortened, spare
from hermes_flow.metrics.objectives import bound_label
from hermes_flow.planning.day import DayPlan
from hermes_flow.planning.designs import Clients
from hermes_flow.planning.plan import Design, Plan
from hermes_flow.planning.plan_table import command_of, overrides_of

_WIDTH = 80
_SHOWN = 10


def plan_text(found: Plan, config: Config, given: Sequence[str] = ()) -> str:
    """Return the answer as text of at most 80 columns: the best design, the ranked and the excluded ones.

    ``given`` are the overrides with which the plan was asked, which the command of the best design repeats.
    """
    lines = textwrap.wrap(_advice(found, config), _WIDTH)
    if found.best is not None:
        lines += ["", *_wrapped(f"Run it: {command_of(overrides_of(found.best), given)}")]
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
        best = day.plans[rate].best if rate in day.plans else None
        price = None if best is None else best.usd_per_hour
        name = "not planned yet" if rate not in day.plans else "no design that was tried meets the SLO"
        name = name if best is None else _what(best)
        lines.append(f"{hour:>4} {digits(rate):>11} {digits(price):>8}  {name}")
    text = "The price of these hours is not known."
    if day.usd is not None and day.usd_at_peak:
        saved = percent(max(0.0, 1 - day.usd / day.usd_at_peak))
        text = f"These hours cost {dollars(day.usd)}. The design of the busiest hour would cost "
        text += f"{dollars(day.usd_at_peak)} for all of them; planning each hour saves up to {saved}."
    lines += ["", *_wrapped(text)]
    for note in day.notes:
        lines += ["", *_wrapped(f"note: {note}")]
    return "\n".join(lines)


def _advice(found: Plan, config: Config) -> str:
    best = found.best
    if best is None:
        return f"No design that was tried meets SLO {config.slo.name} at this load."
    text = f"Buy {_what(best)}: "
    price = best.usd_per_hour
    text += "no price is known for it" if price is None else f"{dollars(price)} per hour"
    text += f". It meets SLO {config.slo.name}"
    if best.headroom is not None:
        text += ", "
        text += (
            f"and its load can grow by {percent(best.headroom)}"
            if best.headroom > 0
            else "but no larger load that was tried does"
        )
    rest = [design for design in found.ranked[1:] if design.usd_per_hour is not None]
    if price and rest:
        second = rest[0].usd_per_hour or 0.0
        compared = (
            "costs the same" if second <= price * 1.0005 else f"costs {percent(second / price - 1)} more"
        )
        text += f". The next design, {_what(rest[0])}, {compared}"
    return f"{text}.{_error_bar(found)}"


def _error_bar(found: Plan) -> str:
    """Return what the error bar of the best design means for its price, and how many designs are as good."""
    best = found.best
    if best is None or best.sizes is None:
        return ""
    bar = best.sizes.step_times
    low, high = (_amount(best, clients) for clients in (best.sizes.low, best.sizes.high))
    text = f" With the error bar of its step times ({percent(bar.low)} to {percent(bar.high)}; {bar.kind}) "
    text += f"it takes {low}" if low == high else f"it takes {low} to {high}"
    alike = sum(design.like_the_best is True for design in found.ranked)
    if alike:
        text += f"; {counted(alike, 'design')} marked ≈ {'is' if alike == 1 else 'are'} not distinguishable from it"
    return f"{text}."


def _amount(design: Design, clients: Clients | None) -> str:
    """Return the price of so many clients, or their accelerators where there is no price."""
    if clients is None:
        return "more clients than were tried"
    price = design.price_of(clients)
    return counted(design.devices_of(clients) or 0, "accelerator") if price is None else dollars(price)


def _what(design: Design) -> str:
    """Return a design as a buyer says it: 8 × h100_sxm as 2 clients of TP4."""
    clients, family = design.sized.clients, design.family
    assert clients is not None
    parallel = family.parallelism
    if family.layout == "disaggregated":
        shape = f"{clients.prefill} prefill and {clients.decode} decode clients of {parallel}"
    else:
        shape = f"{clients.prefill} client{'' if clients.prefill == 1 else 's'} of {parallel}"
    return f"{_devices(design)} as {shape}"


def _devices(design: Design) -> str:
    """Return the accelerators of a design, those of each side where they differ."""
    clients, family = design.sized.clients, design.family
    if family.decode_hardware is None or clients is None:
        return f"{design.accelerators} × {family.hardware.name}"
    first, second = clients.prefill * family.devices, clients.decode * family.devices
    return f"{first} × {family.hardware.name} + {second} × {family.decode_hardware.name}"


def _kind(design: Design) -> str:
    family = design.family
    return f"{family.hardware_name} {family.parallelism} {family.layout}"


def _table(found: Plan) -> list[str]:
    head = f"{'rank':>4} {'$/hour':>7} {'error bar':>13}  {'design':<26} {'TTFT p99':>9} {'TPOT p90':>9}"
    lines = [f"{head} {'load':>5}" if any(design.headroom is not None for design in found.ranked) else head]
    for rank, design in enumerate(found.ranked[:_SHOWN], 1):
        summary, clients, family = design.summary or {}, design.sized.clients, design.family
        assert clients is not None
        count = f"{clients.prefill}P+{clients.decode}D" if clients.decode else f"{clients.prefill}"
        name = f"{_devices(design)}, {count} × {family.parallelism}"
        if family.decode_hardware is not None:  # there is no room for more
            name = (
                f"{clients.prefill}P {family.hardware.name}, {clients.decode}D {family.decode_hardware.name}"
            )
        price = "–" if design.usd_per_hour is None else digits(design.usd_per_hour)
        more = "" if design.headroom is None else spare(design.headroom).replace(" ", "")
        times = f"{duration(summary['ttft_s']['p99']):>9} {duration(summary['tpot_s']['p90']):>9}"
        text = f"{rank:>4} {price:>7} {_range(design):>13}  {shortened(name, 26):<26} {times} {more:>5}"
        lines.append(text.rstrip())
    if len(found.ranked) > _SHOWN:
        lines.append(f"      and {len(found.ranked) - _SHOWN} more: see plan.parquet")
    return lines


def _range(design: Design) -> str:
    """Return the prices at the ends of the error bar, marked if like the best; "× 1 – 2" are accelerators.

    Those stand for the prices of a design that has none.
    """
    if design.sizes is None:
        return ""
    unpriced = design.usd_per_hour is None
    amount = design.devices_of if unpriced else design.price_of
    ends = [amount(clients) for clients in (design.sizes.low, design.sizes.high)]
    low, high = ("?" if end is None else f"{end:,}" if unpriced else digits(end) for end in ends)
    return f"{'≈ ' if design.like_the_best else ''}{'× ' if unpriced else ''}{low} – {high}"


def _cheaper_misses(found: Plan) -> list[str]:
    """Return a line for each hardware whose largest smaller design would be cheaper, with what it misses."""
    best = None if found.best is None else found.best.usd_per_hour
    if not best:
        return []
    cheaper: dict[str, tuple[float, str]] = {}
    for design in (*found.ranked, *found.ruled_out):
        smaller, family = design.sized.smaller, design.family
        price = None if smaller is None else family.price_of(smaller)
        if smaller is None or price is None:
            continue
        if price < best * 0.9995 and price > cheaper.get(family.hardware_name, (0.0, ""))[0]:
            devices = smaller.total * family.devices
            saved, missed = percent(1 - price / best), ", ".join(map(bound_label, design.sized.missing))
            cheaper[family.hardware_name] = (
                price,
                f"{devices} × {family.hardware_name} ({family.parallelism}, {family.layout}) is {saved} "
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
