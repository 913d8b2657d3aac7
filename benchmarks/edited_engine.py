"""Changes the constants of the engine of a run's LLM pool, as the fits of these constants do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import hermes_flow as hf
from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.replay import Edit


def with_engine(change: Callable[[EngineOverhead], EngineOverhead]) -> Edit:
    """Return what gives the pool ``llm`` of a configuration the engine that ``change`` makes of its own."""

    def edit(config: hf.Config) -> hf.Config:
        pool = config.cluster.pools["llm"]
        assert isinstance(pool, LLMPool)
        assert pool.hardware.engine is not None
        hardware = replace(pool.hardware, engine=change(pool.hardware.engine))
        pools = config.cluster.pools | {"llm": replace(pool, hardware=hardware)}
        return replace(config, cluster=replace(config.cluster, pools=pools))

    return edit
