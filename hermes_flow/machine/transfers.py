"""Transfers between clients: the KV that an op needs moves to the client that serves it, and so does its data.

How data and contexts move is in data_transfers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hermes_flow.machine.data_transfers import DataTransfers
from hermes_flow.machine.engine import Engine
from hermes_flow.machine.held_kv import HeldKV
from hermes_flow.machine.placement import Placement
from hermes_flow.machine.pool_clients import PoolClients
from hermes_flow.machine.shared_kv import SharedKV
from hermes_flow.machine.shipments import DATA, FIRST_LAYERS, KV, Shipments
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path, Topology
from hermes_flow.pools.client import Granted
from hermes_flow.program.columns import column
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.program import Program

if TYPE_CHECKING:
    from hermes_flow.machine.route_choice import TakenByLoad

# How far the layers of a request's KV are that leave before its prefill is over. They wait for blocks first; where
# the prefill is over before there are any, all layers leave together.
_NOT_BEGUN, _ASKED, _ALL_ASKED, _UNDER_WAY, _PREFILL_OVER, _GONE = range(6)


class Transfers:
    """Sends what ops need over the network, and submits a task when all of it has arrived.

    ``taken`` and ``successors`` are those of the coordinator: by op, the requests that take it, and the ops after
    it. ``data`` moves all that is not KV. ``delivered_ns`` is when the KV or data of ops that receive any arrived.
    ``granted_ns`` is when a client had blocks for the KV of an op: it sets out no earlier, and lies on
    its prefill client until it is gone. Where KV leaves layer by layer, its client is chosen and asked for blocks as
    soon as the first layer is computed. Then all layers but the last set out; the last follows when the prefill is
    over and those before it are gone.
    """

    def __init__(
        self,
        program: Program,
        engine: Engine,
        placement: Placement,
        taken: Sequence[list[bool] | TakenByLoad | None],
        successors: list[list[int]],
    ) -> None:
        self._engine = engine
        self._ops = program.ops
        self._requests = count = len(program.requests)
        self._placement = placement
        self._client = placement.client
        self._taken = taken
        self._successors = successors
        self._with_op = [op.with_op for op in program.ops]
        self._pools: list[PoolClients] = []
        self._receive_kv: Callable[[int, int], None] | None = None
        self._shipments = Shipments(len(program.ops), count)
        self.kv_source = [None if op.kv is None else op.kv.source for op in program.ops]
        self._kv_bytes = [[] if op.kv is None else op.kv.bytes.tolist() for op in program.ops]
        self._kv_early = [
            None if op.kv is None or op.kv.early_bytes is None else op.kv.early_bytes.tolist()
            for op in program.ops
        ]
        self.shared_kv = SharedKV(program.ops)
        self._early_state = [[_NOT_BEGUN] * (count if early else 0) for early in self._kv_early]
        self.held_kv = HeldKV(program.ops, count)
        # Ops whose clients reserve memory before the prompt is computed, and what begins that then.
        self._ahead = {number for number, op in enumerate(program.ops) if _reserves_first(program, op)}
        self._begin_prompt: Callable[[int, int, int], None] = lambda op, request, now_ns: None
        self.granted_ns = [column(count if op.kv is not None else 0) for op in program.ops]
        self.delivered_ns = [column(count if op.kv is not None or op.data else 0) for op in program.ops]
        self.data = DataTransfers(program, engine, self._client, self.delivered_ns, self._shipments)

    def attach(
        self,
        pools: list[PoolClients],
        receive_kv: Callable[[int, int], None],
        context_bytes: Callable[[int, int], int],
        begin_prompt: Callable[[int, int, int], None] | None = None,
    ) -> None:
        """Set the pools by number; ``receive_kv(op, request)`` is called when KV has arrived.

        ``context_bytes(op, request)`` tells how much a retrieval has found. ``begin_prompt(op, request, now_ns)`` is
        called when a decode client has memory for the KV of a prompt that waits for it.
        """
        if begin_prompt is not None:
            self._begin_prompt = begin_prompt
        self._pools = pools
        self._receive_kv = receive_kv
        self.data.attach(pools, context_bytes)

    def connect(self, topology: Topology, fabric: Fabric, sent: Callable[[], None]) -> None:
        """Set the network, and what to call when something was sent."""
        self._shipments.connect(topology, fabric, sent)

    @property
    def fabric(self) -> Fabric | None:
        """The network; None where nothing moves."""
        return self._shipments.fabric

    def begun(self, ops: list[int]) -> Callable[[int, int], None]:
        """Return the callback ``(task, now_ns)`` for a prompt whose first layer is computed."""
        requests = self._requests

        def first_layer(task: int, now_ns: int) -> None:
            place, request = divmod(task, requests)
            for op in self._successors[ops[place]]:
                early, taken = self._kv_early[op], self._taken[op]
                if early is not None and (taken is None or taken[request]):
                    fleet = self._pools[self._ops[op].pool].fleet
                    if fleet is not None and not fleet.is_open(request):
                        continue  # all of it moves when a client is up
                    self._early_state[op][request] = _ASKED
                    self._ask_for_blocks(ops[place], op, request, now_ns)

        return first_layer

    def reserves_ahead(self, source: int) -> bool:
        """Return whether prompts of an op wait until a decode client has memory for their KV."""
        return any(op in self._ahead for op in self._successors[source])

    def reserved_ns(self, source: int) -> Sequence[int] | None:
        """Return by request when a decode client had memory for the KV of an op; None where prompts wait for none."""
        ahead = [self.granted_ns[op] for op in self._successors[source] if op in self._ahead]
        return [max(instants) for instants in zip(*ahead, strict=True)] if ahead else None

    def reserve_ahead(self, source: int, request: int, now_ns: int) -> bool:
        """Ask for the memory of a prompt's KV before it is computed; return False where nobody needs to.

        ``begin_prompt`` follows.
        """
        for op in self._successors[source]:
            taken = self._taken[op]
            if op in self._ahead and (taken is None or taken[request]):
                self._ask_for_blocks(source, op, request, now_ns)
                return True
        return False

    def send_kv(self, source: int, op: int, request: int, now_ns: int) -> None:
        """Move a request's KV, or what is left of it, from the client that has computed it."""
        if op in self._ahead:
            path = self._kv_path(source, op, request, self._client[op][request])
            self._shipments.send(path, self._kv_bytes[op][request], op, request, now_ns, KV)
            return
        early = self._kv_early[op]
        if early is None or self._early_state[op][request] == _NOT_BEGUN:
            self._ask_for_blocks(source, op, request, now_ns)
            return
        state = self._early_state[op]
        if state[request] == _ASKED:
            state[request] = _ALL_ASKED
        elif state[request] == _UNDER_WAY:
            state[request] = _PREFILL_OVER
        else:
            path = self._kv_path(source, op, request, self._client[op][request])
            size, gone = (
                self.shared_kv.moved(op, request, each)
                for each in (self._kv_bytes[op][request], early[request])
            )
            self._shipments.send(path, size - gone, op, request, now_ns, KV)

    def granted(self, ops: list[int]) -> Granted:
        """Return the callback for a task of a pool that serves ``ops`` and has blocks for its KV, which sets out."""
        requests = self._requests

        def has_blocks(task: int, present: int, brings: int | None, now_ns: int) -> None:
            place, request = divmod(task, requests)
            op = ops[place]
            self.granted_ns[op][request] = now_ns
            if present:
                other = None if brings is None else ops[brings // requests]
                self.shared_kv.found(op, request, present, other)
            source, early = self.kv_source[op], self._kv_early[op]
            assert source is not None
            if op in self._ahead:
                self._begin_prompt(source, request, now_ns)
                return
            path = self._kv_path(source, op, request, self._client[op][request])
            state = self._early_state[op]
            if early is not None and state[request] == _ASKED:
                state[request] = _UNDER_WAY
                size = self.shared_kv.moved(op, request, early[request])
                self._shipments.send(Path(path.links, 0), size, op, request, now_ns, FIRST_LAYERS)
                return
            size = self.shared_kv.moved(op, request, self._kv_bytes[op][request])
            self._shipments.send(path, size, op, request, now_ns, KV)

        return has_blocks

    def _ask_for_blocks(self, source: int, op: int, request: int, now_ns: int) -> None:
        """Choose the client that a request's KV goes to, and ask it for blocks."""
        pool, sources = self._pools[self._ops[op].pool], self._pools[self._ops[source].pool]
        task = pool.offsets[op] + request
        with_op = self._with_op[op]
        chosen = -1 if with_op is None else pool.still_up(self._client[with_op][request])
        if chosen < 0:
            group = (
                self._client[source][request] // sources.group_size if len(pool.choose_in_group) > 1 else 0
            )
            chosen = group * pool.group_size + pool.choose_in_group[group](task, now_ns)
        else:
            pool.on_placed(now_ns)
        self._client[op][request] = chosen
        if pool.fleet is not None:
            pool.fleet.take(chosen, op, request)
        self._engine.wake(pool.ranks[chosen], pool.clients[chosen].ask(task, now_ns))

    def _kv_path(self, source: int, op: int, request: int, receiver: int) -> Path:
        """Return the way from the client that computes a request's KV to one of the op's pool."""
        topology = self._shipments.topology
        assert topology is not None
        sender = self._pools[self._ops[source].pool].first_number + self._client[source][request]
        return topology.path(sender, self._pools[self._ops[op].pool].first_number + receiver)

    def transfer_times(self, ops: list[int], first: int) -> Callable[[int, int], int]:
        """Return the time that the KV of a task would take over idle links, for a pool that serves ``ops``.

        Called as ``(task, client)``, the latter counted from the pool's client ``first``.
        """

        def transfer_ns(task: int, client: int) -> int:
            place, request = divmod(task, self._requests)
            source = self.kv_source[ops[place]]
            if source is None:
                return 0
            path = self._kv_path(source, ops[place], request, first + client)
            assert self._shipments.topology is not None
            return self._shipments.topology.alone_ns(path, self._kv_bytes[ops[place]][request])

        return transfer_ns

    def again(self, op: int, request: int) -> None:
        """Forget what an op of a request was sent: it was lost, and what is on its way brings nothing."""
        self._shipments.again(op * self._requests + request)
        self.data.forget(op, request)
        self.shared_kv.forget(op, request)
        if self._early_state[op]:
            self._early_state[op][request] = _NOT_BEGUN
        if self.granted_ns[op]:
            self.granted_ns[op][request] = -1
        if self.delivered_ns[op]:
            self.delivered_ns[op][request] = -1
        if self.data.moved_bytes[op]:
            self.data.moved_bytes[op][request] = 0

    def skipped(self, op: int, request: int, now_ns: int) -> None:
        """Note that an op will not be begun: nobody awaits its KV."""
        source = self.kv_source[op]
        if source is not None and self.held_kv.never_taken(op, source, request):
            self._let_go(source, request, now_ns)

    def forget_kv(self, op: int, request: int, now_ns: int) -> None:
        """Let the client of a prefill free its KV, which is computed anew if it is needed again."""
        if self.held_kv.forget(op, request):
            self._let_go(op, request, now_ns)

    def _let_go(self, source: int, request: int, now_ns: int) -> None:
        """Let a prefill client free the KV that nobody awaits any more."""
        chosen = self._client[source][request]
        if chosen >= 0:  # else: its prefill is not begun
            pool = self._pools[self._ops[source].pool]
            at_ns = pool.clients[chosen].let_go(pool.offsets[source] + request, now_ns)
            self._engine.wake(pool.ranks[chosen], at_ns)

    def release_sender(self, op: int, request: int, now_ns: int) -> None:
        """Let the fleet of the client that has computed the KV for an op know that it needs it no more."""
        source = self.kv_source[op]
        sender = None if source is None else self._pools[self._ops[source].pool].fleet
        if sender is not None and source is not None and self._client[source][request] >= 0:
            sender.give_kv(self._client[source][request], op, request, now_ns)

    def drop(self, request: int) -> None:
        """Forget a request: what is on its way goes on, and brings nothing."""
        self._shipments.drop(request)
        for op in range(len(self._ops)):
            self.data.forget(op, request)

    def delivered(self, payload: int, now_ns: int) -> None:
        """Note that KV or data of an op has arrived, and submit the task; send what must follow."""
        task, carried = payload >> 2, payload & 3
        if self._shipments.any_lost:
            task = self._shipments.awaited(task)
            if task < 0:
                return
        if carried == DATA and not self.data.arrived(task, now_ns):
            return
        op, request = divmod(task, self._requests)
        if carried == FIRST_LAYERS:
            over = self._early_state[op][request] == _PREFILL_OVER
            self._early_state[op][request] = _GONE
            if over:
                source = self.kv_source[op]
                assert source is not None
                self.send_kv(source, op, request, now_ns)
            return
        sender = self.kv_source[op]
        if sender is not None and self.held_kv.taken_over(sender, request):
            self._let_go(sender, request, now_ns)
        brings = self.shared_kv.waits_for(op, request)
        if brings is None or self.delivered_ns[brings][request] >= 0:
            self._arrived(op, request, now_ns)
        else:
            self.shared_kv.follow(op, request, brings)

    def _arrived(self, op: int, request: int, now_ns: int) -> None:
        """All KV or data for an op of a request is there: submit the task, and those that waited for the same KV."""
        self.delivered_ns[op][request] = now_ns
        if self.kv_source[op] is None:
            self._placement.submit(op, request, now_ns)
            return
        pool = self._pools[self._ops[op].pool]
        chosen = self._client[op][request]
        assert self._receive_kv is not None
        self._receive_kv(op, request)
        self.release_sender(op, request, now_ns)
        self._engine.wake(pool.ranks[chosen], pool.clients[chosen].bring(pool.offsets[op] + request, now_ns))
        for follower in self.shared_kv.followers(op, request):
            self._arrived(follower, request, now_ns)


def _reserves_first(program: Program, op: Op) -> bool:
    client = program.pools[op.pool].client
    return op.kv is not None and isinstance(client, LLMClientSpec) and client.reserves_first
