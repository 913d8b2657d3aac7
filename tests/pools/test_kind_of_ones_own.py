"""A kind of pool in one file of a user's own: nothing else of the package knows it, and all of it works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.pools import pool_kinds
from hermes_flow.errors import ConfigError, PluginError

KIND = '''
"""Pools of a service that takes the same time for every task, however many there are."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from hermes_flow.config.pools import pool_kinds
from hermes_flow.pools.client import PoolClient, PoolTasks
from hermes_flow.pools.kind import AskedWork, PoolKind
from hermes_flow.program.pools import Pool
from hermes_flow.program.units import NEVER, ms_to_ns
from hermes_flow.program.work import CoreTime
from hermes_flow.recording.recording import ClientRecord, OpRecord


@dataclass(frozen=True, slots=True)
class DelayPool:
    """The keys: every task takes ``delay_ms``."""

    devices: ClassVar[int] = 0
    hardware: ClassVar[None] = None
    model_name: ClassVar[None] = None
    host: ClassVar[None] = None
    kind: Literal["delay"]
    serves: tuple[str, ...]
    delay_ms: float
    count: int = 1
    routing: str | None = None
    if_needed: bool = False


@dataclass(frozen=True, slots=True)
class DelaySpec:
    kind: ClassVar[str] = "delay"
    devices: ClassVar[int] = 0
    model: ClassVar[None] = None
    kv_blocks: ClassVar[None] = None
    delay_ns: int


class DelayTasks(PoolTasks):
    def __init__(self, count):
        self.start_ns, self.finish_ns = [-1] * count, [-1] * count

    def record(self, first, count, client, ready_ns):
        columns = (self.start_ns[first : first + count], self.finish_ns[first : first + count])
        return OpRecord(client, ready_ns, *(np.array(column, dtype=np.int64) for column in columns))


class DelayClient(PoolClient):
    def __init__(self, index, spec, tasks, calls):
        self.index, self._delay_ns, self._tasks, self._calls = index, spec.delay_ns, tasks, calls
        self._ends, self.served = deque(), 0

    @property
    def deliveries(self):
        return self

    def submit(self, task, now_ns):
        self._tasks.start_ns[task], self._tasks.finish_ns[task] = now_ns, now_ns + self._delay_ns
        self._ends.append((now_ns + self._delay_ns, task))
        self.served += 1

    def next_ns(self):
        return self._ends[0][0] if self._ends else NEVER

    def fire(self, now_ns):
        while self._ends and self._ends[0][0] <= now_ns:
            self._calls.done(self._ends.popleft()[1], now_ns)

    def settle(self, now_ns):
        pass

    def outstanding(self, now_ns):
        return len(self._ends)

    def queued_tokens(self, now_ns):
        return len(self._ends)


@pool_kinds.register("delay")
class DelayKind(PoolKind):
    schema = DelayPool
    work = "sequential"
    notifies = True

    def check(self, name, pool, cluster, problems):
        if pool.delay_ms < 0:
            problems.append(f"cluster.pools.{name}.delay_ms: {pool.delay_ms:g} is below 0")

    def lower_work(self, placed, places, lowering):
        return AskedWork({p: CoreTime(np.zeros_like(placed[p].tokens), placed[p].tokens) for p in places})

    def lower(self, name, pool, routing, asked, lowering):
        spec = DelaySpec(ms_to_ns(pool.delay_ms))
        return Pool(name, None, pool.count, routing, spec, notes=(f"{pool.delay_ms:g} ms each",))

    def build(self, program, index, ops, calls):
        pool, tasks = program.pools[index], DelayTasks(len(ops) * len(program.requests))
        return tasks, [DelayClient(i, pool.client, tasks, calls) for i in range(pool.count)]

    def record(self, pool, spec, client):
        return ClientRecord(pool, client.index, 1, client.served, 0)

    def summarize(self, lowered, records):
        return {"delays": {"tasks": sum(record.tasks for record in records)}}
'''


ENTRY = """
kind: delay
serves: [tool]
delay_ms: 75
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder of entries with the pool, and the override that loads its kind, which is forgotten afterwards."""
    tmp_path = tmp_path_factory.mktemp("own")
    path = tmp_path / "delay_pool.py"
    path.write_text(KIND, encoding="utf-8")
    entry = tmp_path / "conf" / "pool" / "delay.yaml"
    entry.parent.mkdir(parents=True)
    entry.write_text(ENTRY, encoding="utf-8")
    yield tmp_path / "conf", f"plugins=[{path}]"
    pool_kinds._classes.pop("delay", None)


CHOSEN = ("pipeline=agent", "pool@cluster.pools.tools=delay")


def test_a_kind_of_pool_is_one_file_and_one_entry(own: tuple[Path, str]) -> None:
    workload = ("workload=synthetic", "workload.requests=20", "slo=none")
    program = hf.compile(hf.compose([own[1], *CHOSEN, *workload], config_dir=own[0]))
    assert "tools: 1 × delay" in str(program)
    assert "75 ms each" in str(program)
    result = hf.simulate(program)
    calls = result.stages.filter(result.stages["pool"] == "tools")
    assert len(calls) > 20
    assert calls["service_s"].to_list() == pytest.approx([0.075] * len(calls))
    assert result.summary["delays"] == {"tools": {"tasks": len(calls)}}
    assert result.summary["requests"]["completed"] == 20
    client = result.clients.filter(result.clients["pool"] == "tools")
    assert client["hardware"].to_list() == [None]


def test_its_keys_are_checked_like_any_other(own: tuple[Path, str]) -> None:
    folder, plugin = own
    with pytest.raises(
        ConfigError, match=r"cluster\.pools\.tools\.delay_s: unknown key; did you mean 'delay_ms'"
    ):
        hf.compose([plugin, *CHOSEN, "+cluster.pools.tools.delay_s=75"], config_dir=folder)
    broken = hf.compose([plugin, *CHOSEN, "cluster.pools.tools.delay_ms=-1"], config_dir=folder)
    with pytest.raises(hf.CompileError, match=r"cluster\.pools\.tools\.delay_ms: -1 is below 0"):
        hf.compile(broken)


def test_clients_give_up_only_where_tasks_can_be_taken_back(own: tuple[Path, str]) -> None:
    config = hf.compose([own[1], *CHOSEN, "workload.timeout_s=5"], config_dir=own[0])
    with pytest.raises(
        hf.CompileError, match=r"workload\.timeout_s: clients of kind 'delay' .*tools.* take no task"
    ):
        hf.compile(config)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("    def outstanding(self, now_ns):", "its class DelayClient has no outstanding"),
        ("    def record(self, first", "its class DelayTasks has no record"),
    ],
)
def test_a_method_that_is_missing_is_named(tmp_path: Path, method: str, said: str) -> None:
    assert method in KIND
    path = tmp_path / "half_a_pool.py"
    lacking = KIND.replace(method, method.replace("def ", "def not_")).replace('"delay"', '"half"')
    path.write_text(lacking, encoding="utf-8")
    entry = tmp_path / "conf" / "pool" / "half.yaml"
    entry.parent.mkdir(parents=True)
    entry.write_text(ENTRY.replace("kind: delay", "kind: half"), encoding="utf-8")
    chosen = [f"plugins=[{path}]", "pipeline=agent", "pool@cluster.pools.tools=half"]
    try:
        program = hf.compile(hf.compose([*chosen, "workload=synthetic"], config_dir=tmp_path / "conf"))
        with pytest.raises(PluginError, match=f"the kind of pool 'half' failed: {said}"):
            hf.simulate(program)
    finally:
        pool_kinds._classes.pop("half", None)
