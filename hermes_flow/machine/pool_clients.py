"""A pool at run time, as the coordinator sees it: its clients, and the routing among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from hermes_flow.routing import Choose

if TYPE_CHECKING:
    from hermes_flow.machine.router_fleet import RouterFleet
    from hermes_flow.machine.site_fleets import SiteFleets


class Client(Protocol):
    """The interface of a client to the coordinator."""

    index: int

    @property
    def looks_ahead(self) -> bool:
        """Whether it may do at once what nobody sees before it is over; see ``PoolClient.look_ahead``."""

    def ask(self, task: int, now_ns: int) -> int | None:
        """Queue a task whose KV lies on another client, for the blocks that it needs here."""

    def bring(self, task: int, now_ns: int) -> int | None:
        """Note that the KV of a task that had asked for blocks is here."""

    def let_go(self, task: int, now_ns: int) -> int | None:
        """Free the KV of a prompt that no client awaits any more."""

    def await_data(self, task: int) -> None:
        """Take note of a task that was routed here and whose context or data is on the way."""

    def submit(self, task: int, now_ns: int) -> int | None:
        """Queue a task that is ready now; return the client's next instant, None to be asked for it."""

    def withdraw(self, task: int, now_ns: int) -> int | None:
        """Take back a task that nobody waits for any more; return what ``submit`` does."""

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when no work may be left of a task that was taken back; ``now_ns`` where none is."""


class HoldingClient(Client, Protocol):
    """A client whose tasks can queue before they are ready: an LLM client."""

    def hold(self, task: int, now_ns: int) -> None:
        """Let a task whose context is looked up take its place in the queue; ``submit`` follows."""


class ContextHolder(Client, Protocol):
    """A client whose prompts get their blocks before their contexts are read."""

    def ask_for_context(self, task: int, now_ns: int) -> int | None:
        """Queue a task whose context is not read yet; ``Calls.granted`` follows, and then ``submit``."""


class PoolClients:
    """A pool at run time: its clients, the routing among them, and the places of its clients.

    ``first_number`` counts clients over all pools; ``ranks`` are the engine's ranks of what ``submit`` wakes.
    ``notify`` tells whether anyone waits for its tasks; ``offsets`` maps an op to the number of the first of its
    tasks in this pool. ``choose`` chooses among all clients; without ``chooses`` it always returns 0. For KV that
    arrives, ``choose_in_group`` has an entry for each group of ``group_size`` clients, which counts within the group.
    ``on_placed`` is told when a task comes that nobody has to choose for. ``fleet`` has the tasks of a pool whose
    clients come and go.
    """

    __slots__ = (
        "choose",
        "choose_in_group",
        "chooses",
        "clients",
        "first_number",
        "fleet",
        "group_size",
        "notify",
        "offsets",
        "on_placed",
        "ranks",
    )

    def __init__(self, first_number: int, notify: bool, offsets: dict[int, int], group_size: int) -> None:
        self.first_number = first_number
        self.ranks: list[int] = []
        self.notify = notify
        self.offsets = offsets
        self.group_size = group_size
        self.fleet: RouterFleet | SiteFleets | None = None
        self.clients: Sequence[Client] = ()
        self.choose: Choose = lambda task, now_ns: 0
        self.chooses = True
        self.choose_in_group: list[Choose] = [self.choose]
        self.on_placed: Callable[[int], None] = lambda now_ns: None

    def attach(self, clients: Sequence[Client], choose: Choose, choose_in_group: list[Choose]) -> None:
        """Set the clients, and the routing among all of them and within each group."""
        self.clients = clients
        self.choose = choose
        self.choose_in_group = choose_in_group

    def still_up(self, client: int) -> int:
        """Return a client that an earlier op of a request was on; −1 if it takes no tasks any more."""
        return -1 if self.fleet is not None and client >= 0 and not self.fleet.is_up(client) else client
