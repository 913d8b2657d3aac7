"""Configurations for tests of the compiler: a composed one, changed in place of composing many."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import pytest

import hermes_flow as hf
from hermes_flow.config.schema import Config, Pipeline
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.pools.sequential.schema import SequentialPool


@functools.cache
def config(*overrides: str) -> Config:
    return hf.compose(overrides)


def with_stages(stages: dict[str, Any], base: Config | None = None) -> Config:
    base = base or config("workload.requests=5")
    return dataclasses.replace(base, pipeline=Pipeline("test", stages))


def with_pool(name: str, base: Config | None = None, **changes: Any) -> Config:
    base = base or config("workload.requests=5")
    pools: dict[str, LLMPool | SequentialPool] = dict(base.cluster.pools)
    pools[name] = dataclasses.replace(pools[name], **changes)
    return dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, pools=pools))


def llm_pool(base: Config | None = None) -> LLMPool:
    pool = (base or config("workload.requests=5")).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def problems_of(broken: Config) -> list[str]:
    """Return the problems for which ``broken`` does not compile."""
    with pytest.raises(CompileError) as caught:
        hf.compile(broken)
    return list(caught.value.problems)
