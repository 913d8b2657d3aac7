"""Names that keys and entries have in other tools (vLLM, SGLang, TensorRT-LLM, Hugging Face), for error messages."""

from __future__ import annotations

import re
from collections.abc import Sequence

_POOL = "cluster.pools.llm"
# Their names, in plain letters, by our full key.
_NAMES: dict[str, str] = {
    "workload.rate_per_s": "request_rate rate qps rps requests_per_second arrival_rate max_rate",
    "workload.requests": "num_prompts num_requests request_count max_requests n_requests",
    "workload.arrivals.concurrency": "max_concurrency concurrency num_users users",
    "workload.input_tokens": (
        "input_len input_length random_input_len random_input isl prompt_tokens prompt_len prompt_length"
    ),
    "workload.output_tokens": (
        "output_len output_length random_output_len random_output osl max_tokens max_new_tokens max_output_tokens"
    ),
    "workload.path": "dataset_path dataset trace_path trace_file input_file",
    "model": "model_path model_name model_name_or_path model_id hf_model_id",
    "model.layers": "num_hidden_layers n_layer n_layers num_layers",
    "model.heads": "num_attention_heads n_head n_heads num_heads",
    "model.kv_heads": "num_key_value_heads num_kv_heads n_kv_heads multi_query_group_num",
    "model.hidden_size": "n_embd d_model hidden_dim",
    "model.intermediate_size": "ffn_hidden_size n_inner ffn_dim d_ff",
    "model.max_context": (
        "max_model_len max_position_embeddings context_length max_seq_len max_sequence_length max_context_len "
        "ctx_size"
    ),
    "model.tied_embeddings": "tie_word_embeddings",
    "model.precision.weights": "quantization dtype torch_dtype weight_dtype quant_algo weight_precision",
    "model.precision.kv_cache": "kv_cache_dtype kv_dtype kv_cache_quant_algo",
    "model.precision.activations": "activation_dtype act_dtype",
    "model.experts.count": "num_experts num_local_experts n_routed_experts moe_num_experts",
    "model.experts.per_token": "num_experts_per_tok num_experts_per_token moe_top_k top_k_experts",
    "model.experts.intermediate_size": "moe_intermediate_size",
    "model.experts.shared": "n_shared_experts num_shared_experts",
    "model.experts.dense_layers": "first_k_dense_replace",
    "model.experts.routing_skew": "routing_skew",
    "model.experts.groups": "n_group num_expert_group",
    "model.experts.groups_per_token": "topk_group",
    "model.sampling": "top_p top_k repetition_penalty temperature",
    "hardware": "gpu gpu_type gpu_name accelerator device device_type gpu_model sku",
    "engine": "backend framework serving_engine inference_engine",
    "cluster.routing": "routing routing_policy router_policy load_balancing_policy",
    f"{_POOL}.count": "replicas num_replicas num_instances instances n_instances",
    f"{_POOL}.tensor_parallel": "tensor_parallel_size tp tp_size tensor_parallelism tensor_model_parallel_size",
    f"{_POOL}.pipeline_parallel": "pipeline_parallel_size pp pp_size pipeline_parallelism",
    f"{_POOL}.data_parallel": (
        "data_parallel_size dp dp_size attention_dp_size enable_attention_dp enable_dp_attention"
    ),
    f"{_POOL}.expert_parallel": (
        "enable_expert_parallel ep ep_size moe_expert_parallel_size expert_parallel_size"
    ),
    f"{_POOL}.max_num_seqs": "max_running_requests max_batch_size max_concurrent_requests batch_size",
    f"{_POOL}.max_num_batched_tokens": "max_num_tokens token_budget chunk_size max_batched_tokens",
    f"{_POOL}.block_size": "page_size tokens_per_block kv_block_size",
    f"{_POOL}.kv_blocks": "num_gpu_blocks num_gpu_blocks_override num_kv_blocks",
    f"{_POOL}.memory_utilization": "gpu_memory_utilization mem_fraction_static gpu_mem_util free_gpu_memory_fraction",
    f"{_POOL}.prefix_cache": (
        "enable_prefix_caching prefix_caching disable_radix_cache enable_block_reuse radix_cache"
    ),
    f"{_POOL}.batching": "enable_chunked_prefill chunked_prefill scheduling",
    f"{_POOL}.packing": "schedule_policy",
    f"{_POOL}.mixed_chunk": "enable_mixed_chunk",
    f"{_POOL}.lookahead": "async_scheduling overlap_schedule disable_overlap_schedule",
    f"{_POOL}.speculative.tokens": "num_speculative_tokens speculative_num_draft_tokens speculative_num_steps",
    f"{_POOL}.speculative.draft": "speculative_model draft_model speculative_draft_model_path",
    f"{_POOL}.speculative.acceptance": "acceptance_rate acceptance_probability",
    "slo.ttft_ms": "ttft max_ttft ttft_slo",
    "slo.tpot_ms": "tpot itl max_tpot tpot_slo itl_slo",
    "slo.e2e_ms": "e2e max_e2e latency_slo",
    "output.report": "report html",
    "output.trace": "trace profile",
}
# Top-level keys and groups, and words that are near to them.
_GROUPS = ("name", "kind", "model", "models", "hardware", "engine", "seed", "cost", "notes", "routing")
_BY_NAME = {name: key for key, names in _NAMES.items() for name in names.split()}


def known_as(name: str) -> str | None:
    """Return the full key that ``name`` means elsewhere, whatever its dashes and capitals; None if it is not known.

    A key of an LLM pool without its path, as ``tensor_parallel``, is known as well.
    """
    plain = re.sub(r"[^a-z0-9]+", "_", name.lstrip("+~-").lower()).strip("_")
    return _BY_NAME.get(plain) or _own_keys().get(plain)


def hint(key: str) -> str | None:
    """Return a clause that says where the key ``key`` is to be found, None where it is not known elsewhere.

    The key of another pool keeps its pool, and a key that is right where it stands has no hint.
    """
    above, _, name = key.lstrip("+~").rpartition(".")
    meant = known_as(name)
    if meant is None or meant == key.lstrip("+~"):
        return None
    pool = re.fullmatch(r"(cluster\.pools\.[^.]+)(?:\..*)?", above)
    if pool and meant.startswith(_POOL):
        meant = pool[1] + meant.removeprefix(_POOL)
    elif pool and meant.startswith("model"):
        meant = f"{pool[1]}.{meant}"
    return f"; it is called {meant} here"


def published_models() -> dict[str, str]:
    """Return the entries of the catalog by the plain name of the Hugging Face repository that each comes from."""
    from hermes_flow.config.folders import config_folder

    found: dict[str, str] = {}
    for path in sorted((config_folder() / "model").glob("*.yaml")):
        for repository in re.findall(r" config\.json of ([\w.-]+/[\w.-]+)", path.read_text(encoding="utf-8")):
            found.setdefault(plain_model(repository), path.stem)
    return found


def plain_model(name: str) -> str:
    """Return the name of a model without its organisation and without what does not change its shape."""
    text = name.rstrip("/").rpartition("/")[2].lower()
    text = re.sub(r"[^a-z0-9.]+", "-", text).replace("meta-", "")
    text = re.sub(r"-(instruct|chat|hf|it|base|thinking|v0\.[0-9]+|2507|0324|0528|2512)(?=-|$)", "", text)
    return re.sub(r"llama-3\.[13](?=-)", "llama-3.1", text)


def named_on_hugging_face(name: str) -> str | None:
    """Return a clause on the entry of the catalog that ``name`` means, None where it is not like such a name."""
    meant = published_models().get(plain_model(name))
    if meant is not None:
        return f"it is called {meant} here"
    if "/" in name:
        return f"give the path of its config.json, as in model=path/to/{name.rpartition('/')[2]}/config.json"
    return None


def _own_keys() -> dict[str, str]:
    """Return the full keys of an LLM pool, of a workload and of a model by their last part."""
    from dataclasses import fields

    from hermes_flow.config.model import Model
    from hermes_flow.config.pools import pool_kinds
    from hermes_flow.config.workloads import SyntheticWorkload

    found: dict[str, str] = {}
    groups: Sequence[tuple[str, object]] = (
        ("model", Model),
        ("workload", SyntheticWorkload),
        (_POOL, pool_kinds.known_schema("llm")),
    )
    for group, schema in groups:
        for field in fields(schema):  # type: ignore[arg-type]
            found[field.name] = f"{group}.{field.name}"
    return {name: key for name, key in found.items() if name not in _GROUPS}
