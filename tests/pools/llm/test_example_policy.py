"""The batching policy that docs/extend.md shows runs on every layout and with every setting of a pool."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.machine.wiring import Machine
from hermes_flow.pools.llm.batching import batching_policies
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.engine_client import EngineClient
from hermes_flow.recording.recording import STEP_FIELDS

DECODES = STEP_FIELDS.index("decodes")
PAGE = Path(__file__).resolve().parents[3] / "docs" / "extend.md"
LOAD = ["workload=synthetic", "workload.requests=40", "workload.rate_per_s=8", "slo=none"]
SESSIONS = ["workload=sessions", "workload.sessions=12", "workload.rate_per_s=2", "slo=none"]

# Each takes the policy for all its LLM pools.
DEPLOYMENTS = {
    "replicas": ["cluster=replicas", *LOAD],
    "disaggregated": ["cluster=disaggregated", *LOAD],
    "disaggregated, layer by layer": ["cluster=disaggregated", "cluster.kv_transfer=layerwise", *LOAD],
    "disaggregated, decode emits first": ["cluster=disaggregated", "cluster.first_token=decode", *LOAD],
    "hgx": ["cluster=hgx", *LOAD],
    "rack": ["cluster=rack", *LOAD],
    "hybrid": ["cluster=hybrid", *LOAD],
    "pipeline parallel": ["cluster.pools.llm.pipeline_parallel=2", *LOAD],
    "pipeline parallel, short of blocks": [
        "cluster.pools.llm.pipeline_parallel=4",
        "cluster.pools.llm.kv_blocks=150",
        *LOAD,
        "workload.input_tokens=1200",
        "workload.output_tokens=700",
    ],
    "look-ahead 0": ["cluster.pools.llm.lookahead=0", *LOAD],
    "swap": ["cluster.pools.llm.preemption=swap", "cluster.pools.llm.pipeline_parallel=2", *LOAD],
    "whole sequences reserved": ["cluster.pools.llm.preemption=none", *LOAD],
    "prefix cache": ["cluster.pools.llm.prefix_cache=true", *SESSIONS],
    "speculation": ["+model@cluster.pools.llm.speculative.draft=llama3_8b", *LOAD],
    "retrieved contexts": ["pipeline=kv_reuse", *LOAD],
    "branches": ["pipeline=reasoning_multi", "cluster.pools.llm.prefix_cache=true", *LOAD],
    "an answer that is read as it is written": ["pipeline=chat_guarded_streaming", *LOAD],
}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The module of the page, as a file; what it registers is forgotten afterwards."""
    text = PAGE.read_text(encoding="utf-8")
    modules = re.findall(r"^```python\n(\"\"\".*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    (module,) = (found for found in modules if '.register("one_by_one")' in found)
    path = tmp_path_factory.mktemp("plugin") / "one_by_one.py"
    path.write_text(module, encoding="utf-8")
    yield path
    batching_policies._classes.pop("one_by_one", None)


@pytest.mark.parametrize("deployment", DEPLOYMENTS)
def test_the_example_runs(plugin: Path, deployment: str) -> None:
    overrides = [f"plugins=[{plugin}]", *DEPLOYMENTS[deployment]]
    pools = [name for name, pool in hf.compose(overrides).cluster.pools.items() if hasattr(pool, "batching")]
    batching = [f"cluster.pools.{name}.batching=one_by_one" for name in pools]
    machine = Machine(hf.compile(hf.compose([*overrides, *batching])))
    machine.engine.run(None)
    assert (machine.record(0.0, 0.0).status == 0).all(), "every request is completed"
    clients = [
        client for clients in machine.clients for client in clients if isinstance(client, EngineClient)
    ]
    assert len(clients) >= len(pools)
    for client in clients:
        assert sum(len(batch.running) for batch in client.batches) == 0
        assert len(client.waiting) == 0
        for lane in client.lanes():
            assert (lane[:, DECODES] <= 1).all(), "one sequence decodes at a time"
        if isinstance(client, LLMClient):
            assert client.batch.free == client.batch.blocks, "every block is free again"
