"""Reads what the data-parallel ranks of a command line are: ranks of attention, or clients of their own."""

from __future__ import annotations

from typing import Any

from hermes_flow.deployments.models import catalog_entry
from hermes_flow.errors import ConfigError


def divide_ranks(
    engine: str, keys: dict[str, Any], ignored: dict[str, str], notes: list[str], model: Any
) -> None:
    """Change ``keys`` of a pool so that they describe what the data-parallel ranks of a command line are.

    They are attention apart on each rank of a mixture, or clients of their own. Flags that have no effect go to
    ``ignored``, with the reason, and what a user should know to ``notes``. ``model`` is None where it is not known.
    """
    _leave_out_dense_ranks(keys, ignored, model)
    _place_ranks(engine, keys, ignored, notes, model)
    _spread_experts(keys, notes, model)


def _place_ranks(
    engine: str, keys: dict[str, Any], ignored: dict[str, str], notes: list[str], model: Any
) -> None:
    if keys.pop("attention_dp", False):  # TensorRT-LLM has a rank on each device of its tensor-parallel group
        keys["data_parallel"], keys["tensor_parallel"] = keys.get("tensor_parallel", 1), 1
        notes.append("each device is a data-parallel rank of attention: data_parallel in place of tp_size")
        return
    ranks, apart = keys.get("data_parallel", 1), keys.pop("dp_attention", False)
    reason = _unused_routing(keys, ranks, apart)
    if reason:
        del keys["rank_routing"]
        ignored["--load-balance-method"] = reason
    if ranks <= 1:
        return
    if apart:  # SGLang divides its tensor-parallel group among the ranks
        devices = keys.get("tensor_parallel", 1)
        if devices % ranks:
            raise ConfigError(
                "task.path: --data-parallel-size",
                f"{ranks} ranks of attention do not divide --tensor-parallel-size {devices}",
            )
        keys["tensor_parallel"] = devices // ranks
        for limit in ("max_num_seqs", "chunked_prefill_size"):  # and these limits of its flags
            if keys.get(limit) is not None:
                keys[limit] = max(1, keys[limit] // ranks)
        notes.append("tensor_parallel is that of one data-parallel rank of attention")
        return
    mixture = bool(catalog_entry(str(model)).get("experts")) if model else keys.get("expert_parallel", False)
    if mixture and engine != "sglang":
        return
    del keys["data_parallel"]
    keys["count"] = ranks
    what = "data-parallel ranks of a dense model" if not mixture else "replicas behind one server"
    note = f"{ranks} {what} are {ranks} clients"
    if not model and not mixture and engine != "sglang":
        note += "; if the model is a mixture of experts, set data_parallel in place of count"
    notes.append(note)


def _leave_out_dense_ranks(keys: dict[str, Any], ignored: dict[str, str], model: Any) -> None:
    """Ignore ranks of attention of a model that is known to be dense: they would share its MLPs."""
    flags = {"attention_dp": "--enable-attention-dp", "dp_attention": "--enable-dp-attention"}
    given = [key for key in flags if keys.get(key)]
    entry = catalog_entry(str(model)) if model and given else {}
    if not entry or entry.get("experts"):
        return
    for key in given:
        del keys[key]
        ignored[flags[key]] = f"not modelled for {model}, whose MLPs all ranks would share"
    keys.pop("data_parallel", None)


def _unused_routing(keys: dict[str, Any], ranks: int, apart: bool) -> str:
    """Return why the rule by which ranks get requests is left out; empty where there is none, or it is modelled."""
    rule = keys.get("rank_routing")
    if rule is None:
        return ""
    if ranks <= 1:
        return "no effect with one rank"
    if not apart:
        return "the replicas are clients: set cluster.routing"
    if rule in ("round_robin", "shortest_queue"):
        return ""
    if rule == "follow_bootstrap_room":
        return "the default where prefill and decode have servers of their own, no rule elsewhere"
    return f"not modelled: {rule}; the ranks get requests in turns (round_robin), or by shortest_queue"


def _spread_experts(keys: dict[str, Any], notes: list[str], model: Any) -> None:
    """Spread experts over ranks of attention: engines cut them over all ranks, or spread them, and copy none."""
    mixture = model is None or bool(catalog_entry(str(model)).get("experts"))
    if keys.get("data_parallel", 1) > 1 and mixture and not keys.get("expert_parallel"):
        keys["expert_parallel"] = True
        notes.append(
            "the engine cuts the experts over all ranks of attention; here they are spread over them whole "
            "(expert_parallel), which takes as much memory"
        )
