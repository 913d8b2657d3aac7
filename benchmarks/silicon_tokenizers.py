"""The servers of the benchmark runs of benchmarks/silicon.py tokenize prompts before the engine sees them."""

from __future__ import annotations

from dataclasses import replace

import hermes_flow as hf
from benchmarks.silicon_settings import Settings
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.sequential.schema import SequentialPool
from hermes_flow.stages.tokenize import Tokenize

# Mean tokens of the prompts of the runs that ingest_ms is fitted to. It includes their tokenization
PROMPT_OF_INGEST = 650
# The client of InferenceMAX makes prompts of consecutive entries of the vocabulary (bench_serving,
# sample_random_requests), whose words are in no cache of a tokenizer. source: Hugging Face tokenizers 0.23.3 with the
# vocabularies of DeepSeek (129,000 entries) and Claude (65,000): 3.0 to 3.9 µs of one busy core a token of such texts
# of 1,024 and 8,192 tokens, each read once, and 1.8 to 2.9 µs of English text
PER_RANDOM_TOKEN_US = 3.0
# Tokens of prompts that the server splits (silicon_settings.READ_ANEW) are shorter. source: with the same tokenizer
# and DeepSeek's vocabulary they take 0.33 to 0.38 of the time of a random token
PER_SPLIT_TOKEN_US = 1.1
# vLLM gathers prompts for 2 ms from the first one on, 32 at most, and none of them leaves its tokenizer before the
# last one is tokenized. source: AsyncMicrobatchTokenizer (max_batch_size, batch_wait_timeout_s) in
# vllm/utils/async_utils.py, which pull request 45759 of June 2026 has removed. ingest_ms is of vLLM and has
# these 2 ms
GATHERED, GATHERING_MS = 32, 2.0


def with_tokenizer(config: hf.Config, told: Settings) -> hf.Config:
    """Return the configuration with a host that tokenizes ``told.tokenizers`` prompts at once before the prefill.

    The time from arrival to scheduler without the tokenization stays with the engine (``ingest_ms``). vLLM's host
    gathers prompts and hands them on together.
    """
    pool, host = config.cluster.pools["llm"], config.cluster.pools["host"]
    assert isinstance(pool, LLMPool)
    assert isinstance(host, SequentialPool)
    engine = pool.hardware.engine
    if engine is None:
        return config
    gathers = pool.engine.scheduler == "vllm"
    rest_ms = engine.ingest_ms - 1e-3 * Tokenize().per_token_us * PROMPT_OF_INGEST
    if gathers:
        rest_ms -= GATHERING_MS
    hardware = replace(pool.hardware, engine=replace(engine, ingest_ms=rest_ms))
    kind = "tokenize_together" if gathers else "tokenize"
    own = _gathering(host, kind) if gathers else host
    pools = config.cluster.pools | {
        "llm": replace(pool, hardware=hardware),
        "host": replace(own, cores=told.tokenizers),
    }
    tokenize = {"kind": kind, "fixed_us": 0.0, "per_token_us": _per_token_us(told)}
    prefill = config.pipeline.stages["prefill"] | {"after": ["tokenize"]}
    stages = config.pipeline.stages | {"tokenize": tokenize, "prefill": prefill}
    return replace(
        config,
        cluster=replace(config.cluster, pools=pools),
        pipeline=replace(config.pipeline, stages=stages),
    )


def _gathering(host: SequentialPool, kind: str) -> BatchedPool:
    return BatchedPool(
        kind="batched", serves=(kind,), hardware=host.hardware, max_batch=GATHERED, wait_ms=GATHERING_MS
    )


def _per_token_us(told: Settings) -> float:
    if told.read_anew > 1.0:
        return PER_SPLIT_TOKEN_US
    return PER_RANDOM_TOKEN_US if told.random_prompts else Tokenize().per_token_us
