"""No single mistake gets past the checks: whatever one value is, the compiler compiles or says what is wrong."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterator
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tries import tries

import hermes_flow as hf
from hermes_flow.config.convert import convert
from hermes_flow.config.folders import config_folder
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError, ConfigError
from hermes_flow.program.pools import LLMClientSpec


@functools.cache
def plain_config(*overrides: str) -> dict[str, Any]:
    with initialize_config_dir(version_base="1.3", config_dir=str(config_folder()), job_name="test"):
        plain = OmegaConf.to_container(hydra_compose("config", overrides=list(overrides)), resolve=True)
    assert isinstance(plain, dict)
    plain.pop("experiment", None)
    return plain


def keys_of(node: dict[Any, Any], above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    for name, value in node.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from keys_of(value, (*above, name))


BASES = [
    ("workload=closed_loop", "workload.requests=3"),
    ("workload.requests=3", "cost=affine", "cost.fixed_us=100"),
    ("workload.requests=3", "model=mixtral_8x7b", "hardware=l40s", "cluster.pools.llm.tensor_parallel=4"),
]
ODD = [None, -1, 0, 0.5, 1e30, float("inf"), float("nan"), "x", "", [], {}, True]
TOO_LARGE_TO_TRY = {"requests", "count", "max_num_seqs", "max_num_batched_tokens", "concurrency", "kv_blocks"}


@settings(max_examples=tries(60, of=150))
@given(st.data())
def test_an_odd_value_anywhere_compiles_or_is_refused_in_our_words(data: st.DataObject) -> None:
    plain = copy.deepcopy(plain_config(*data.draw(st.sampled_from(BASES))))
    path = data.draw(st.sampled_from(sorted(keys_of(plain), key=str)))
    value = data.draw(st.sampled_from(ODD))
    if value == 1e30 and path[-1] in TOO_LARGE_TO_TRY:
        value = 3
    node = functools.reduce(lambda above, name: above[name], path[:-1], plain)
    node[path[-1]] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            program = hf.compile(convert(Config, plain, ""))
        except (ConfigError, CompileError):
            return
    for pool in program.pools:
        if isinstance(pool.client, LLMClientSpec):
            cost = pool.client.cost
            assert min(cost.tokens_ps + cost.sequences_ps + cost.decode_attention_ps) >= 0
            assert min(cost.context_ps, cost.prefill_pair_ps, cost.prefill_launch_ps, cost.ingest_ns) >= 0
