"""Messages of a run name the pool that they are about, also where it is not called ``llm``."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.program.pools import LLMClientSpec

ROOT = Path(hf.__file__).parent


@pytest.mark.parametrize("engine", ["sglang", "tensorrt_llm"])
def test_the_settings_of_a_scheduler_have_the_key_of_its_pool(engine: str) -> None:
    words = ["pipeline=llm", "cluster=disaggregated", f"engine={engine}", "workload.requests=2", "slo=none"]
    program = hf.compile(hf.compose(words))
    keys = {}
    for pool in program.pools:
        if isinstance(pool.client, LLMClientSpec):
            settings = pool.client.sglang or pool.client.tensorrt_llm
            assert settings is not None
            keys[pool.name] = settings.key
    assert keys == {name: f"cluster.pools.{name}" for name in ("prefill", "decode")}


def test_no_message_of_a_pool_leaves_its_name_open() -> None:
    """What runs, or checks one pool, knows its name; ``NAME`` would leave the reader to guess which pool it is."""
    files = [*(ROOT / "pools").rglob("*.py"), *(ROOT / "machine").rglob("*.py")]
    assert [str(path) for path in files if "pools.NAME" in path.read_text(encoding="utf-8")] == []
