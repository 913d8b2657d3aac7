"""The registry of routing policies."""

from __future__ import annotations

from hermes_flow.config.registry import Registry
from hermes_flow.errors import PluginError
from hermes_flow.program.routing import Choose, Need, RoutedPool, RoutingPolicy

routing_policies: Registry[RoutingPolicy] = Registry(
    "routing policy", tag="policy", package=__package__, methods=("start", "oracle")
)


def needs_of(policy: RoutingPolicy) -> frozenset[Need]:
    """Return the ``needs`` of a policy ("prompts": a pool of LLM clients); it is empty if it has none."""
    needs: frozenset[Need] = getattr(policy, "needs", frozenset())
    return needs


def start(policy: RoutingPolicy, pool: RoutedPool) -> Choose:
    """Return the policy's choice among the clients of a pool; a pool of one client has no choice."""
    if len(pool.clients) == 1 and (pool.numbers is None or not getattr(policy, "remembers", False)):
        return lambda task, now_ns: 0
    choose = policy.start(pool)
    if type(policy).__module__.startswith("hermes_flow."):
        return choose
    return _checked(choose, policy, len(pool.clients))


def _checked(choose: Choose, policy: RoutingPolicy, clients: int) -> Choose:
    """Return the choice of a policy from outside the package, which ends the run where it is no client."""
    places = range(clients)

    def checked(task: int, now_ns: int) -> int:
        client = choose(task, now_ns)
        if client in places:
            return client
        code = getattr(choose, "__code__", type(policy).start.__code__)
        raise PluginError(
            f"the {routing_policies.noun} {routing_policies.name_of(policy)!r}",
            f"it chose client {client!r} of {clients}; expected 0 to {clients - 1}",
            code.co_filename,
            code.co_firstlineno,
            code.co_name,
        )

    return checked
