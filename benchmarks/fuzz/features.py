"""Draws sound settings of many features together: engines, layouts, memory, drafting, offload, fleets and traces."""

from __future__ import annotations

import json
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.fuzz.outcome import Outcome, Try, attempt
from benchmarks.fuzz.overrides import entries

_LAYOUTS = {
    "replicas": ("llm",),
    "hybrid": ("llm",),
    "disaggregated": ("prefill", "decode"),
    "rack": ("prefill", "decode"),
}
_DENSE = ("llama3_8b", "qwen2_5_7b", "mistral_7b", "qwen3_vl_8b", "qwen3_8b")
_MIXTURES = ("qwen3_30b_a3b", "gpt_oss_20b", "gemma_4_26b_a4b", "nemotron_3_nano_30b_a3b", "mixtral_8x7b")
_MODELS = (*_DENSE, *_MIXTURES, *_MIXTURES, "qwen3_5_27b")
_HARDWARE = ("h100_sxm", "h200_sxm", "b200_sxm", "a100_sxm", "mi300x", "tpu_v7", "gb300")

Setting = tuple[str, ...]

_OF_ANY: tuple[Setting, ...] = (
    ("count=2",),
    ("count=3", "routing=least_requests"),
    ("tensor_parallel=2",),
    ("tensor_parallel=8",),
    ("expert_parallel=true", "tensor_parallel=4"),
    ("data_parallel=2",),
    ("data_parallel=2", "expert_parallel=true"),
    ("max_num_seqs=4",),
    ("max_num_seqs=1",),
    ("kv_blocks=400",),
    ("kv_blocks=3000", "block_size=1"),
    ("block_size=16",),
    ("memory_utilization=0.75",),
    ("prefix_cache=true",),
    ("prefix_cache=false",),
    ("lookahead=0",),
    (
        "autoscale={policy:target,metric:queued_per_client,target:2,min:1,max:3,interval_s:1,startup_s:2,"
        "cooldown_s:2}",
    ),
    ("failures={events:[{at_s:0.7,client:0,for_s:2}]}",),
    ("failures={mtbf_s:3,repair_s:1,on_failure:lose}", "count=2"),
    ("failures={mtbf_s:2,repair_s:1}", "kv_blocks=150"),
    ("failures={slowdowns:[{at_s:0.3,client:0,for_s:1,factor:3}]}",),
    ("failures={mtbf_s:2,repair_s:1,notice_s:0.3}", "count=2"),
)
_OF_ENGINE: dict[str, tuple[Setting, ...]] = {
    "vllm": (
        ("pipeline_parallel=2",),
        ("max_num_batched_tokens=256",),
        ("packing=shortest_prompt",),
        ("packing=priority",),
        ("scheduling_policy=priority",),
        ("scheduling_policy=priority", "kv_blocks=150"),
        ("long_prefill_token_threshold=100",),
        ("batching=continuous",),
        ("batching=static",),
        ("batching=static", "failures={mtbf_s:2,repair_s:1}"),
        ("speculative.head=eagle", "failures={mtbf_s:2,repair_s:1}", "count=2"),
        ("speculative.head=eagle", "kv_blocks=150"),
        ("adapters={slots:2,rank:8}", "failures={mtbf_s:2,repair_s:1}"),
        (
            "offload.tiers=[host]",
            "kv_blocks=150",
            "failures={mtbf_s:2,repair_s:1,tiers_survive:[host]}",
            "count=2",
        ),
        ("batching=mixed",),
        ("preemption=swap", "kv_blocks=150"),
        ("retrieved_kv=held",),
        ("adapters={slots:2,rank:8}",),
        ("offload.tiers=[host]", "kv_blocks=150"),
        ("offload.tiers=[host,disk]", "offload.write=computed", "kv_blocks=150"),
        ("tool_gap.policy=keep",),
        ("tool_gap.policy=ttl", "tool_gap.ttl_s=2"),
        ("tool_gap.policy=offload", "offload.tiers=[host]"),
        ("tool_gap.policy=drop",),
        ("speculative.head=eagle",),
        ("speculative.head=mtp", "speculative.tokens=2", "speculative.acceptance_length=1.8"),
        ("speculative.head=eagle3", "speculative.head_vocabulary=32000"),
        ("failures={events:[{at_s:0.7,client:0,for_s:2}],on_failure:migrate}", "count=2"),
        ("rank_routing=round_robin", "data_parallel=2"),
        ("encoder_cache_size=2000",),
    ),
    "sglang": (
        ("max_prefill_tokens=300",),
        ("chunked_prefill_size=200",),
        ("chunked_prefill_size=null",),
        ("packing=lpm",),
        ("schedule_conservativeness=0.3",),
        ("mixed_chunk=true", "chunked_prefill_size=128"),
        ("num_reserved_decode_tokens=16",),
        ("scheduler_recv_interval=5",),
        ("mamba_full_memory_ratio=0.5",),
        ("rank_routing=shortest_queue", "data_parallel=2"),
        ("offload.tiers=[host]", "offload.write=reused", "kv_blocks=3000"),
        ("offload.tiers=[host,disk]", "offload.write=computed", "kv_blocks=3000"),
        ("offload.tiers=[host]", "kv_blocks=3000"),
        ("block_size=64", "kv_blocks=60"),
    ),
    "tensorrt_llm": (
        ("capacity_scheduler_policy=max_utilization", "kv_blocks=80"),
        ("capacity_scheduler_policy=static_batch",),
        ("context_chunking_policy=first_come_first_served", "max_num_batched_tokens=256"),
        ("context_chunking_policy=equal_progress", "max_num_batched_tokens=256"),
        ("batch_wait_timeout_iters=5", "batch_wait_max_tokens_ratio=0.5"),
        ("batch_wait_timeout_ms=5",),
        ("attention_dp_config.enable_balance=true", "data_parallel=2"),
    ),
}
_WHOLE: tuple[Setting, ...] = (
    ("workload.timeout_s=2",),
    ("workload.timeout_s=1", "workload.retry={times:2,backoff_s:0.5}"),
    ("cluster.admission={policy:limit,max_in_flight:4,on_full:reject,max_queued:2}",),
    (
        "cluster.admission={policy:limit,max_in_flight:4,max_queued:2,on_full:hold,retry:{times:2,backoff_s:1}}",
    ),
    (
        "cluster.admission={policy:weighted_fair,max_in_flight:4,on_full:hold}",
        "workload.classes={a:{share:0.5,tenant:x,priority:2},b:{share:0.5,tenant:y,priority:1}}",
    ),
    ("cluster.routing=prefix_affinity",),
    ("cluster.routing=least_kv",),
    ("cluster.routing=session_affinity",),
    ("cost=affine", "cost.fixed_us=3000", "cost.per_token_us=5", "cost.per_context_us=0.01"),
    ("network=hgx",),
    ("prices=neocloud",),
    ("cluster.copies=2",),
    ("cluster.sites={us:{users:0.5,latency_ms:{eu:40}},eu:{users:0.5}}",),
    (
        "cluster.sites={us:{users:0.5,latency_ms:{eu:40},failures:{events:[{at_s:0.5,for_s:1}]}},eu:{users:0.5}}",
        "cluster.site_routing=least_loaded",
    ),
    ("engine.server_limits=by_gpu",),
    ("network.failures=[{at_s:0.3,for_s:0.5,node:0}]",),
    ("workload.timeout_s=0.3",),
)
_APART: tuple[Setting, ...] = (
    ("cluster.groups=2",),
    ("cluster.kv_transfer=layerwise",),
    ("cluster.first_token=decode",),
    ("cluster.kv_handover_us=500",),
)
_LOADS: tuple[Setting, ...] = (
    ("workload=synthetic", "workload.requests=30", "workload.rate_per_s=20"),
    ("workload=synthetic", "workload.requests=30", "workload.rate_per_s=20", "workload.prefix_share=0.5"),
    (
        "workload=synthetic",
        "workload.requests=24",
        "workload.rate_per_s=8",
        "workload.adapters={count:5,skew:1}",
    ),
    ("workload=sessions", "workload.sessions=8", "workload.rate_per_s=4", "workload.think_time_s=0.5"),
    ("workload=closed_loop", "workload.requests=30"),
)


def features(rng: random.Random) -> Try:
    """Draw a pipeline, layout, engine, model and load, and some settings that belong together.

    Settings that do not go together are refused; the last ones are left out until a run comes to its end.
    """
    layout = rng.choice(list(_LAYOUTS))
    engine = rng.choice(list(_OF_ENGINE))
    base = [f"pipeline={rng.choice(entries('pipeline'))}", f"cluster={layout}", f"engine={engine}"]
    base += [f"model={rng.choice(_MODELS)}", f"hardware={rng.choice(_HARDWARE)}"]
    pools = _LAYOUTS[layout]
    settings = []
    for _ in range(rng.choice((1, 2, 2, 3))):
        pool = rng.choice(pools)
        chosen = rng.choice((*_OF_ANY, *_OF_ENGINE[engine], *_OF_ENGINE[engine]))
        settings.append(tuple(f"cluster.pools.{pool}.{each}" for each in chosen))
    settings += rng.sample((*_WHOLE, *_APART) if len(pools) > 1 else _WHOLE, rng.choice((0, 0, 1, 2)))
    rng.shuffle(settings)
    extra = tuple(each for setting in settings for each in setting)
    if rng.random() < 0.5:
        load = rng.choice(_LOADS)
        return Try("features", (*load, *base, *extra), partial(_as_many_as_run, load, None))
    lines = tuple(json.dumps(row) for row in _rows(rng))
    return Try("features", (*base, *extra), partial(_as_many_as_run, (), lines))


def _as_many_as_run(load: Setting, lines: tuple[str, ...] | None, overrides: tuple[str, ...]) -> Outcome:
    """Try the overrides, and fewer of them while they are refused; with ``lines`` on the trace of these."""
    least = len(load) + 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        path.write_text("\n".join(lines or ()) + "\n")
        given = () if lines is None else ("workload=trace", f"workload.path={path}")
        while True:
            outcome = attempt([*given, *overrides], names=path.name, shown=overrides)
            if outcome.ran or outcome.broken is not None or len(overrides) <= least:
                return outcome
            overrides = overrides[:-1]


def _rows(rng: random.Random) -> list[dict[str, Any]]:
    """Draw rows of a sound trace with some of the optional columns."""
    columns = [each for each in _COLUMNS if rng.random() < 0.5]
    if "prefix_hashes" not in columns:
        columns = [each for each in columns if each != "answer_hashes"]
    forced = "ignore_eos" in columns and rng.random() < 0.5
    rows: list[dict[str, Any]] = []
    shared = [rng.randrange(10**6) for _ in range(40)]
    for index in range(24):
        tokens, answer = rng.randrange(20, 700), rng.randrange(1, 60)
        row: dict[str, Any] = {
            "arrival_s": round(index * 0.06, 3),
            "input_tokens": tokens,
            "output_tokens": answer,
        }
        known = rng.randrange(0, 30)
        own = [10**7 + index * 1000 + block for block in range(100)]
        hashes = [*shared[:known], *own][: tokens // 16]
        written = (tokens + answer - 1) // 16 - len(hashes)
        values = {
            "output_limit": answer + (0 if forced else rng.choice((0, 10, 300))),
            "ignore_eos": forced,
            "prefix_hashes": hashes,
            "answer_hashes": [2 * 10**7 + index * 1000 + block for block in range(written)],
            "priority": rng.randrange(3),
        }
        row |= {name: values[name] for name in columns}
        rows.append(row)
    return rows


_COLUMNS = ("output_limit", "ignore_eos", "prefix_hashes", "answer_hashes", "priority")
