"""The naive reference of batched clients: a system of them, stepped from instant to instant.

Within an instant requests arrive first, then passes end, client by client, and what follows from that is submitted;
then every idle client looks whether it begins a pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

PassNs = Callable[[int, list[int]], int]  # (op, requests of the pass) → its duration


@dataclass(frozen=True)
class OracleBatchPool:
    """``clients`` that take turns, each with passes of up to ``max_batch``."""

    clients: int
    max_batch: int
    wait_ns: int


@dataclass(frozen=True)
class OracleOp:
    """One op: the pool that serves it, those before it, and the requests that take it."""

    pool: int
    after: tuple[int, ...]
    taken: list[bool]


@dataclass
class _Client:
    waiting: list[tuple[int, int, int]] = field(default_factory=list)  # (submitted at, op, request)
    serving: list[tuple[int, int]] = field(default_factory=list)  # (op, request)
    ends_ns: int = -1


@dataclass
class OracleRun:
    """When each (op, request) was submitted, began and ended, and on which client."""

    ready_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    start_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    finish_ns: dict[tuple[int, int], int] = field(default_factory=dict)
    client: dict[tuple[int, int], int] = field(default_factory=dict)
    passes: list[tuple[int, int, int]] = field(default_factory=list)  # (pool, client, tasks)


def simulate_batch_servers(
    arrival_ns: list[int], pools: list[OracleBatchPool], ops: list[OracleOp], pass_ns: PassNs
) -> OracleRun:
    """Serve every request; pools choose among their clients by turns."""
    run = OracleRun()
    clients = [[_Client() for _ in range(pool.clients)] for pool in pools]
    turns = [0] * len(pools)
    done: set[tuple[int, int]] = set()
    given: set[tuple[int, int]] = set()

    def submit(op: int, request: int, now: int) -> None:
        if (op, request) in given:
            return
        given.add((op, request))
        if not ops[op].taken[request]:
            finish(op, request, now)
            return
        pool = ops[op].pool
        chosen = turns[pool] % pools[pool].clients
        turns[pool] += 1
        run.ready_ns[op, request] = now
        run.client[op, request] = chosen
        clients[pool][chosen].waiting.append((now, op, request))

    def finish(op: int, request: int, now: int) -> None:
        done.add((op, request))
        for later, other in enumerate(ops):
            if op in other.after and all((before, request) in done for before in other.after):
                submit(later, request, now)

    def may_begin_ns(pool: OracleBatchPool, client: _Client) -> int | None:
        """The first instant at which an idle client begins a pass, given what waits now."""
        if client.serving or not client.waiting:
            return None
        first, op, _ = client.waiting[0]
        alike = [at for at, other, _ in client.waiting if other == op]
        if len(alike) >= pool.max_batch:
            return min(first + pool.wait_ns, alike[pool.max_batch - 1])
        return first + pool.wait_ns

    now = 0
    arrived = 0
    while True:
        while arrived < len(arrival_ns) and arrival_ns[arrived] <= now:
            for op, each in enumerate(ops):
                if not each.after:
                    submit(op, arrived, now)
            arrived += 1
        for group in clients:
            for client in group:
                if client.serving and client.ends_ns <= now:
                    ended, client.serving = client.serving, []
                    for op, request in ended:
                        run.finish_ns[op, request] = now
                    for op, request in ended:
                        finish(op, request, now)
        for number, (pool, group) in enumerate(zip(pools, clients, strict=True)):
            for index, client in enumerate(group):
                at = may_begin_ns(pool, client)
                if at is None or at > now:
                    continue
                op = client.waiting[0][1]
                batch = [entry for entry in client.waiting if entry[1] == op][: pool.max_batch]
                client.waiting = [entry for entry in client.waiting if entry not in batch]
                client.serving = [(op, request) for _, _, request in batch]
                client.ends_ns = now + pass_ns(op, [request for _, _, request in batch])
                run.passes.append((number, index, len(batch)))
                for _, _, request in batch:
                    run.start_ns[op, request] = now
        following = [client.ends_ns for group in clients for client in group if client.serving]
        for pool, group in zip(pools, clients, strict=True):
            following += [at for client in group if (at := may_begin_ns(pool, client)) is not None]
        if arrived < len(arrival_ns):
            following.append(arrival_ns[arrived])
        if not following:
            return run
        now = min(following)
