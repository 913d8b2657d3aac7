"""A run of which every submission is noted down: which client got which task, when, and in what order."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from oracles.llm_client import PLAIN, OraclePolicy, OracleRequest
from oracles.llm_prefix_cache import each_block

from hermes_flow.machine.coordinator import Coordinator
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.run import run
from hermes_flow.pools.llm.client import LLMClient
from hermes_flow.pools.llm.packing import packing_orders
from hermes_flow.pools.llm.pipelined_client import PipelinedClient
from hermes_flow.pools.sequential.client import SequentialClient
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.program import Program
from hermes_flow.recording.recording import OpRecord, Recording
from hermes_flow.routing import Choose

AnyClient = LLMClient | PipelinedClient | SequentialClient


@dataclass(frozen=True)
class Submission:
    """One task given to one client; ``task`` is its number within the pool."""

    pool: int
    client: int
    task: int
    at_ns: int


@dataclass
class WatchedRun:
    """A recording, every submission in order, what each pool's router chose, and all clients by (pool, client).

    A task whose KV is elsewhere is submitted as it asks for blocks. ``brought`` are the arrivals of such KV, and
    ``let_go`` the prompts whose KV nobody awaits any more.
    """

    program: Program
    submissions: list[Submission] = field(default_factory=list)
    brought: list[Submission] = field(default_factory=list)
    let_go: list[Submission] = field(default_factory=list)
    choices: dict[int, list[int]] = field(default_factory=dict)
    clients: dict[tuple[int, int], AnyClient] = field(default_factory=dict)
    _recording: Recording | None = None

    @property
    def recording(self) -> Recording:
        """What the run left behind."""
        assert self._recording is not None
        return self._recording

    def given(self, pool: int, client: int) -> list[Submission]:
        """Return what one client was given, in order."""
        return [entry for entry in self.submissions if (entry.pool, entry.client) == (pool, client)]

    def in_pool(self, pool: int) -> list[Submission]:
        """Return what all clients of a pool were given, in order."""
        return [entry for entry in self.submissions if entry.pool == pool]

    def op_and_request(self, submission: Submission) -> tuple[int, int]:
        """Return which op of which request a task is: a pool numbers its tasks op by op."""
        ops = [index for index, op in enumerate(self.program.ops) if op.pool == submission.pool]
        place, request = divmod(submission.task, len(self.program.requests))
        return ops[place], request

    def times(self, submission: Submission) -> tuple[int, int]:
        """Return when a task started and finished, in ns."""
        op, request = self.op_and_request(submission)
        record: OpRecord = self.recording.ops[op]
        return int(record.start_ns[request]), int(record.finish_ns[request])


def watch(program: Program) -> WatchedRun:
    """Run ``program`` and note what each client is given."""
    watched = WatchedRun(program)
    places: dict[int, tuple[int, int]] = {}
    attach = Coordinator.attach

    def noting_attach(
        self: Coordinator,
        pools: list[PoolClients],
        receive_kv: Callable[[int, int], None],
        context_bytes: Callable[[int, int], int],
    ) -> None:
        for noted in (watched.submissions, watched.brought, watched.let_go):
            noted.clear()  # a run may begin anew
        for number, pool in enumerate(pools):
            for client in pool.clients:
                assert isinstance(client, AnyClient)
                places[id(client)] = (number, client.index)
                watched.clients[number, client.index] = client
            chosen = watched.choices[number] = []
            if len(pool.clients) > 1:
                pool.choose = noting_choice(pool.choose, chosen, first=0)
                pool.choose_in_group = [
                    noting_choice(choose, chosen, first=group * pool.group_size)
                    for group, choose in enumerate(pool.choose_in_group)
                ]
        attach(self, pools, receive_kv, context_bytes)

    with ExitStack() as stack:
        stack.enter_context(patch.object(Coordinator, "attach", noting_attach))
        for kind in (LLMClient, PipelinedClient, SequentialClient):
            stack.enter_context(_noting(kind, "submit", places, watched.submissions))
        for kind in (LLMClient, PipelinedClient):
            stack.enter_context(_noting(kind, "ask", places, watched.submissions))
            stack.enter_context(_noting(kind, "bring", places, watched.brought))
            stack.enter_context(_noting(kind, "let_go", places, watched.let_go))
        watched._recording = run(program)
    return watched


def noting_choice(choose: Choose, chosen: list[int], first: int) -> Choose:
    """Return a choice that notes what another one chooses, counted within the pool."""

    def noting(task: int, now_ns: int) -> int:
        client = choose(task, now_ns)
        chosen.append(first + client)
        return client

    return noting


@contextmanager
def _noting(
    kind: type[AnyClient], method: str, places: dict[int, tuple[int, int]], noted: list[Submission]
) -> Iterator[None]:
    """Note the calls of a method that takes a task and the time."""
    call = getattr(kind, method)

    def noting(self: Any, task: int, now_ns: int) -> Any:
        noted.append(Submission(*places[id(self)], task, now_ns))
        return call(self, task, now_ns)

    with patch.object(kind, method, noting):
        yield


def as_oracle_sees_it(
    watched: WatchedRun, given: list[Submission]
) -> tuple[list[OracleRequest], OraclePolicy]:
    """Return what one LLM client was given, and its scheduler's choices, in the words of the naive client."""
    pool = watched.program.pools[given[0].pool].client if given else None
    if not isinstance(pool, LLMClientSpec):
        return [], PLAIN
    names = {packing_orders.find(name, ""): name for name in packing_orders.names}
    policy = OraclePolicy(
        packing="fcfs" if pool.packing is None else names[type(pool.packing)],
        preemption=pool.preemption,
        swap_ps_per_block=pool.swap_ps_per_block,
        prefix_cache=pool.prefix_cache,
    )
    requests = []
    prefixes = watched.program.requests.prefixes
    for entry in given:
        number, request = watched.op_and_request(entry)
        op = watched.program.ops[number]
        assert op.llm is not None
        prompt = int(op.llm.prompt[request])
        output = int(op.llm.output[request])
        keys: tuple[Hashable, ...] = ()
        if isinstance(prefixes, SessionPrefixes):
            known = prefixes.full_blocks(request, pool.block_size, prompt)
            if number == _read(watched.program, request):
                known = prefixes.answer_blocks(request, pool.block_size, prompt, output) or known
            keys = tuple(each_block(prefixes.runs(request, pool.block_size, 0, known)))
        elif prefixes is not None:
            keys = tuple(prefixes.block_keys(request, pool.block_size, prompt))
        elsewhere = op.kv is not None
        keys = () if elsewhere else keys
        requests.append(OracleRequest(entry.at_ns, prompt, output, keys, prefilled=elsewhere, asks=elsewhere))
    return requests, policy


def _read(program: Program, request: int) -> int:
    """Return the op whose answer the user reads: the last that the request takes."""
    ops = program.ops
    return max(op for op in program.answers if (taken := ops[op].taken) is None or taken[request])
