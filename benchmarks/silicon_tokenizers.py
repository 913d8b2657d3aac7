"""The servers of the benchmark runs of benchmarks/silicon.py tokenize prompts before the engine sees them."""

from __future__ import annotations

from dataclasses import replace

import hermes_flow as hf
from benchmarks.silicon_settings import Settings
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


def with_tokenizer(config: hf.Config, told: Settings) -> hf.Config:
    """Return the configuration with a host that tokenizes ``told.tokenizers`` prompts at once before the prefill.

    The time from arrival to scheduler without the tokenization stays with the engine (``ingest_ms``).
    """
    pool, host = config.cluster.pools["llm"], config.cluster.pools["host"]
    assert isinstance(pool, LLMPool)
    assert isinstance(host, SequentialPool)
    engine = pool.hardware.engine
    if engine is None:
        return config
    rest_ms = engine.ingest_ms - 1e-3 * Tokenize().per_token_us * PROMPT_OF_INGEST
    hardware = replace(pool.hardware, engine=replace(engine, ingest_ms=rest_ms))
    host = replace(host, cores=told.tokenizers)
    pools = config.cluster.pools | {"llm": replace(pool, hardware=hardware), "host": host}
    tokenize = {"kind": "tokenize", "fixed_us": 0.0, "per_token_us": _per_token_us(told)}
    prefill = config.pipeline.stages["prefill"] | {"after": ["tokenize"]}
    stages = config.pipeline.stages | {"tokenize": tokenize, "prefill": prefill}
    return replace(
        config,
        cluster=replace(config.cluster, pools=pools),
        pipeline=replace(config.pipeline, stages=stages),
    )


def _per_token_us(told: Settings) -> float:
    if told.read_anew > 1.0:
        return PER_SPLIT_TOKEN_US
    return PER_RANDOM_TOKEN_US if told.random_prompts else Tokenize().per_token_us
