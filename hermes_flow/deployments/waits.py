"""Leaves out flags for waits of a scheduler, and for its ranks, that have no effect or are not modelled together.

An engine starts with such flags, while a pool with the same keys is refused. So they are named as ignored.
"""

from __future__ import annotations

from typing import Any

_INTERVAL = "scheduler_recv_interval"
_STEPS, _RATIO, _TIME = "batch_wait_timeout_iters", "batch_wait_max_tokens_ratio", "batch_wait_timeout_ms"
_BALANCE = "attention_dp_config"


def leave_out_waits(keys: dict[str, Any], ignored: dict[str, str], pool: str) -> None:
    """Remove such keys of a pool from ``keys``, and note in ``ignored`` why, by flag."""
    ranks = keys.get("data_parallel", 1) > 1
    apart = pool != "llm"

    def drop(key: str, reason: str) -> None:
        if key in keys:
            del keys[key]
            ignored["--" + key.replace("_", "-")] = reason

    if (keys.get(_INTERVAL) or 0) <= 1:
        drop(_INTERVAL, "no effect: new requests are looked for before every step")
    if not keys.get(_STEPS) or not keys.get(_RATIO):
        drop(_STEPS, f"no effect without --{_RATIO.replace('_', '-')} above 0")
        drop(_RATIO, f"no effect without --{_STEPS.replace('_', '-')} above 0")
    if not keys.get(_TIME):
        drop(_TIME, "no effect")
    for key in (_INTERVAL, _STEPS, _RATIO, _TIME):
        if ranks:
            drop(key, "not modelled with data-parallel ranks of attention")
        elif apart:
            drop(key, "not modelled where prefill and decode have pools of their own")
    if not (ranks and keys.get(f"{_BALANCE}.enable_balance")):
        for key in [key for key in keys if key.startswith(f"{_BALANCE}.")]:
            drop(key, "no effect without --enable-attention-dp and enable_balance: true")
