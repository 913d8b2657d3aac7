"""The RAG deployment for tests: pipeline=rag on cluster=rag, changed in place of composing many."""

from __future__ import annotations

import dataclasses
from typing import Any

from compiler.configs import config

from hermes_flow.config.schema import Config
from hermes_flow.pools.batched.schema import BatchedPool
from hermes_flow.pools.sequential.schema import SequentialPool


def rag(pipeline: str = "rag", cluster: str = "rag") -> Config:
    """Return 40 requests of a conversation trace's lengths, two a second."""
    load = ("workload.requests=40", "workload.rate_per_s=2")
    return config(f"pipeline={pipeline}", f"cluster={cluster}", *load)


def pool_of(name: str, base: Config) -> BatchedPool:
    pool = base.cluster.pools[name]
    assert isinstance(pool, BatchedPool)
    return pool


def changed(base: Config, pool: str, **changes: Any) -> Config:
    """Return the config with some keys of a pool changed."""
    before = base.cluster.pools[pool]
    assert isinstance(before, BatchedPool | SequentialPool)
    pools = {**base.cluster.pools, pool: dataclasses.replace(before, **changes)}
    return dataclasses.replace(base, cluster=dataclasses.replace(base.cluster, pools=pools))


def with_stage(base: Config, stage: str, **changes: Any) -> Config:
    """Return the config with some keys of a stage changed."""
    stages = {**base.pipeline.stages, stage: {**base.pipeline.stages[stage], **changes}}
    return dataclasses.replace(base, pipeline=dataclasses.replace(base.pipeline, stages=stages))


def without_keys(base: Config, stage: str, *keys: str) -> Config:
    """Return the config without some keys of a stage."""
    kept = {name: value for name, value in base.pipeline.stages[stage].items() if name not in keys}
    stages = {**base.pipeline.stages, stage: kept}
    return dataclasses.replace(base, pipeline=dataclasses.replace(base.pipeline, stages=stages))
