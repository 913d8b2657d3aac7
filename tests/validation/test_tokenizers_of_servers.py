"""Benchmark runs wait for the tokenizer of their server, which takes prompts one by one or a few at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import hermes_flow as hf
from benchmarks.left_out import without
from benchmarks.silicon import config
from benchmarks.silicon_settings import settings
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.sequential.schema import SequentialPool

ROW: dict[str, Any] = {
    "backend": "vllm",
    "backend_version": None,
    "system": "b200_sxm",
    "precision": "fp8",
    "model_path": "meta-llama/Llama-3.1-70B",
    "silicon_data_source": "source_file=2026-04-06.csv; silicon_concurrency=4",
    "batch_size": 4,
    "isl": 1024,
    "osl": 1024,
    "tp_size": 2,
    "moe_tp_size": 2,
    "moe_ep_size": 1,
    "attention_dp_size": 1,
}
GATHERING_MS = 2.0  # of vLLM's tokenizer
WITHOUT_TOKENS_MS = 8.0 - 1e-3 * 1.55 * 650 - GATHERING_MS  # 8 ms are fitted to prompts of 650 tokens on vLLM


@pytest.mark.parametrize(("published", "per_token_us"), [(True, 3.0), (False, 1.55)])
@pytest.mark.parametrize("stated", [300, 8192])
def test_a_prompt_alone_waits_for_its_tokens_before_the_prefill(
    stated: int, published: bool, per_token_us: float
) -> None:
    source = ROW["silicon_data_source"] if published else "elsewhere; silicon_concurrency=4"
    alone = _one_prompt(config({**ROW, "isl": stated, "silicon_data_source": source}), stated)
    waited_ms = GATHERING_MS + 1e-3 * per_token_us * stated
    assert _first_token_ms(alone) - _first_token_ms(_without_tokenizer(alone)) == pytest.approx(
        waited_ms, abs=0.01
    )


@pytest.mark.parametrize("edit", [lambda config: config, without])
def test_the_engine_keeps_what_is_left_of_its_time_before_the_scheduler(edit: Any) -> None:
    pool = edit(config(ROW)).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    assert pool.hardware.engine is not None
    assert pool.hardware.engine.ingest_ms == pytest.approx(WITHOUT_TOKENS_MS)


@pytest.mark.parametrize(
    ("backend", "release", "at_once"),
    [
        ("vllm", "0.15.1", 5),
        ("vllm", "0.16.0", 1),
        ("vllm", "nightly-5b8c30d62b754b57", 1),
        ("sglang", "0.5.9", 1),
        ("trtllm", "1.1.0rc2.post2", 1),
        ("trtllm", "1.2.0rc2", 5),
        ("trtllm", "gpt-oss-dev", 1),
        ("trtllm", None, 1),
    ],
)
def test_the_release_says_how_many_prompts_are_tokenized_at_once(
    backend: str, release: str | None, at_once: int
) -> None:
    row = {**ROW, "backend": backend, "backend_version": release, "model_path": "openai/gpt-oss-120b"}
    assert settings(row, 4).tokenizers == at_once
    host = config(row).cluster.pools["host"]
    assert isinstance(host, BatchedPool if backend == "vllm" else SequentialPool)
    assert host.cores == at_once


def test_the_tokenizer_of_kimi_takes_one_prompt_at_a_time() -> None:
    kimi = {**ROW, "model_path": "moonshotai/Kimi-K2.5", "precision": "int4", "backend_version": "0.15.1"}
    assert settings(kimi, 4).tokenizers == 1


@pytest.mark.parametrize(("backend", "release", "each"), [("sglang", "0.5.9", 1), ("trtllm", "1.2.0rc2", 0)])
def test_prompts_that_arrive_together_are_tokenized_one_by_one_or_at_once(
    backend: str, release: str, each: int
) -> None:
    tokenized = _tokenized(4, backend=backend, backend_version=release)
    times_s = [3e-6 * tokens for tokens in tokenized["tokens"]]
    assert tokenized["finish_s"].max() == pytest.approx(sum(times_s) if each else max(times_s), abs=1e-6)


@pytest.mark.parametrize(("release", "at_once"), [("0.16.0", 1), ("0.15.1", 5)])
def test_no_prompt_leaves_the_tokenizer_of_vllm_before_the_last_of_those_gathered_with_it(
    release: str, at_once: int
) -> None:
    users = 40  # 32 of them in the first pass, 8 in the second
    tokenized = _tokenized(users, backend_version=release)
    mean_s = 3e-6 * 0.9 * 1024
    first_s = 32 / at_once * mean_s  # it is full, so it does not wait for more
    second_s = first_s + max(1.0, 8 / at_once) * mean_s
    ends = tokenized["finish_s"].sort().to_list()
    assert ends[:32] == pytest.approx([first_s] * 32, rel=0.03)
    assert ends[32:] == pytest.approx([second_s] * 8, rel=0.03)
    assert len({*ends}) == 2


def _tokenized(users: int, **row: Any) -> Any:
    """Return the rows of the stage ``tokenize`` of so many requests that arrive together."""
    source = f"source_file=2026-04-06.csv; silicon_concurrency={users}"
    described = config({**ROW, "batch_size": users, "silicon_data_source": source, **row})
    workload = replace(described.workload, requests=users)
    stages = hf.simulate(hf.compile(replace(described, workload=workload))).stages
    return stages.filter(stages["stage"] == "tokenize")


def _one_prompt(described: hf.Config, tokens: int) -> hf.Config:
    load = {"process": "closed_loop", "concurrency": 1}
    workload = replace(described.workload, requests=1, arrivals=load, input_tokens=tokens, output_tokens=2)
    return replace(described, workload=workload)


def _without_tokenizer(described: hf.Config) -> hf.Config:
    stages = {name: each for name, each in described.pipeline.stages.items() if name != "tokenize"}
    stages["prefill"] = {"kind": "prefill"}
    return replace(described, pipeline=replace(described.pipeline, stages=stages))


def _first_token_ms(described: hf.Config) -> float:
    ttft_s: Any = hf.simulate(hf.compile(described)).requests["ttft_s"][0]
    return 1e3 * float(ttft_s)
