"""The cost of a run: the price of its cluster, and what its requests and tokens cost."""

from __future__ import annotations

import math
from typing import Any

from hermes_flow.metrics.fleets import mean_clients
from hermes_flow.metrics.sites import transfer_usd
from hermes_flow.recording.client_states import PAID
from hermes_flow.recording.recording import Recording


def cost_summary(
    recording: Recording, span_s: float, requests: int, input_tokens: int, output_tokens: int | None
) -> dict[str, Any]:
    """Return the cluster's price per hour, and that price over its requests and tokens.

    ``requests`` and tokens are those of the run's ``span_s``. The price per million input tokens and the one per
    million output tokens each carry the whole price of the cluster. What is paid by use counts per hour as much as it
    took in the span of the run, ``usd_by_use``, and so does moving data between sites, ``transfer_usd``.
    ``accelerators`` and ``accelerator_hours_per_million_output_tokens`` need no price.

    Of a pool whose clients come and go, the mean number of clients that were paid for counts, over the whole run.

    Hosts without a price count as free, and are listed; an accelerator pool without one, or no price at all,
    leaves the cost unknown.
    """
    pools = recording.program.pools
    by_use = {
        index: [client.spent_usd for client in recording.clients if client.pool == index]
        for index, pool in enumerate(pools)
        if pool.paid_by_use
    }
    spent = [usd for own in by_use.values() for usd in own if usd is not None]
    known = {pools[index].name for index, own in by_use.items() if None not in own}
    unpriced = [pool.name for pool in pools if pool.usd_per_hour is None and pool.name not in known]
    paid = mean_clients(recording, PAID)
    prices = [
        pool.usd_per_hour * count
        for pool, count in zip(pools, paid, strict=True)
        if pool.usd_per_hour is not None
    ]
    if by_use and span_s:
        prices.append(3600 * math.fsum(spent) / span_s)
    moved = transfer_usd(recording)
    if moved is not None and span_s:
        prices.append(3600 * moved / span_s)
    unknown = not prices or any(
        pool.name in unpriced and (pool.client.devices or pool.paid_by_use) for pool in pools
    )
    usd_per_hour = None if unknown else math.fsum(prices)
    accelerators = math.fsum(count * pool.client.devices for pool, count in zip(pools, paid, strict=True))
    hours = span_s / 3600
    usd = None if usd_per_hour is None else usd_per_hour * hours
    return {
        "usd_per_hour": usd_per_hour,
        "usd_per_request": _ratio(usd, requests),
        "usd_per_million_input_tokens": _per_million(usd, input_tokens),
        "usd_per_million_output_tokens": _per_million(usd, output_tokens),
        "output_tokens_per_usd": _ratio(output_tokens, usd),
        "accelerators": int(accelerators) if accelerators.is_integer() else accelerators,
        "accelerator_hours_per_million_output_tokens": _per_million(
            accelerators * hours if accelerators else None, output_tokens
        ),
        "unpriced": unpriced,
        **({} if moved is None else {"transfer_usd": moved}),
        **({"usd_by_use": None if len(known) < len(by_use) else math.fsum(spent)} if by_use else {}),
    }


def _per_million(amount: float | None, tokens: int | None) -> float | None:
    each = _ratio(amount, tokens)
    return None if each is None else 1e6 * each


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    """Return the quotient, None where it is undefined."""
    if numerator is None or not denominator:
        return None
    return float(numerator / denominator)
