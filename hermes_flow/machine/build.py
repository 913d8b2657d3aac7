"""Builds the clients of a pool and their tasks through the pool's kind."""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.config.pools import pool_kinds
from hermes_flow.errors import PluginError
from hermes_flow.pools.client import Calls, PoolClient
from hermes_flow.pools.kind import kind_called
from hermes_flow.pools.tasks import PoolTasks
from hermes_flow.program.program import Program

_OF_TASKS = ("record",)
_OF_CLIENTS = ("deliveries", "submit", "outstanding", "queued_tokens")


def build_clients(
    program: Program, index: int, numbers: list[int], calls: Calls, joined: PoolTasks | None
) -> tuple[PoolTasks, Sequence[PoolClient]]:
    """Return the tasks of pool ``index``, which serves the ops ``numbers``, and its clients.

    They serve the tasks ``joined`` where the pool shares the router of another. Raises PluginError where a class of
    the user's own lacks a method that every kind must have.
    """
    name = program.pools[index].client.kind
    kind = kind_called(name)
    if joined is None:
        tasks, clients = kind.build(program, index, numbers, calls)
    else:
        tasks, clients = joined, kind.join(program, index, joined, calls)
    if not type(kind).__module__.startswith("hermes_flow."):
        _check(name, type(kind), type(tasks), PoolTasks, _OF_TASKS)
        for made in dict.fromkeys(type(client) for client in clients):
            _check(name, type(kind), made, PoolClient, _OF_CLIENTS)
    return tasks, clients


def _check(name: str, kind: type, made: type, interface: type, methods: Sequence[str]) -> None:
    """Check that a class from outside the package has ``methods``, which its ``interface`` only declares.

    No metaclass does it (``pools/client.py``).
    """
    missing = [m for m in methods if getattr(made, m, None) is getattr(interface, m)]
    if missing:
        code = kind.build.__code__  # type: ignore[attr-defined]  # a plain function of the user's own
        lacking = " and no ".join(missing)
        raise PluginError(
            f"the {pool_kinds.noun} {name!r}",
            f"its class {made.__name__} has no {lacking}",
            code.co_filename,
            code.co_firstlineno,
            code.co_name,
        )
