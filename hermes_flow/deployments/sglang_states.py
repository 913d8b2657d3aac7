"""Reads what flags of SGLang say about the memory of states, for models of the catalog that keep some or none."""

from __future__ import annotations

from typing import Any

from hermes_flow.deployments.models import catalog_entry

_RATIO = "mamba_full_memory_ratio"


def read_states(keys: dict[str, Any], ignored: dict[str, str], model: str) -> list[str]:
    """Remove a ratio without effect from the ``keys`` of a pool, note why in ``ignored``, and return what to say.

    ``model`` is its entry in the catalog; nothing is known of others.
    """
    entry = catalog_entry(model)
    if not entry:
        return []
    states = any(each.get("kind") != "attention" for each in (entry.get("mixers") or {}).values())
    reason = ""
    if not states:
        reason = f"no effect: {model} has no layers that keep a state"
    elif "max_num_seqs" in keys:
        reason = "not modelled with --max-running-requests: each of these requests has a slot for its state"
    if reason and keys.pop(_RATIO, None) is not None:
        ignored["--mamba-full-memory-ratio"] = reason
    # source: SGLang, MAMBA_CACHE_SIZE_MAX_RUNNING_REQUESTS_RATIO, and more slots with its overlapped scheduler
    if not states or keys.get("prefix_cache") is False:
        return []
    return [
        f"SGLang keeps a radix cache for {model} unless --disable-radix-cache is given, and then has a seat for "
        "every third slot of states at most; here there is none, and every slot is a seat"
    ]
