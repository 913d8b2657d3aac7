"""The interface of a pool's clients to the machine that runs them; that of its tasks is in ``pools/tasks.py``.

The machine calls a client in the order of simulated time. ``hold`` may announce a task, and ``ask`` asks for the
memory of one whose KV is elsewhere; ``submit``, or ``bring``, says that it is ready. The client then serves it and
calls ``done(task, now_ns)``. A task that nobody waits for need not be reported (``Calls.notify``).

The interfaces have no metaclass, although they have abstract methods: compiled classes that inherit from an ``ABC``
share one cache of ``isinstance`` and answer wrongly. mypy finds a class of ours that lacks a method, and
``machine/build.py`` finds one of the user's own.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from mypy_extensions import mypyc_attr

from hermes_flow.pools.progress import NOTHING, Progress
from hermes_flow.pools.shared_device import SharedDevice
from hermes_flow.pools.tasks import PoolTasks as PoolTasks  # where a kind of one's own imports it from
from hermes_flow.program.resource import Resource
from hermes_flow.program.units import Ints
from hermes_flow.routing.unfinished import Unfinished

Called: TypeAlias = Callable[[int, int], None]  # (task, now_ns)
Over: TypeAlias = Callable[[int], None]  # (now_ns)
Granted: TypeAlias = Callable[
    [int, int, int | None, int], None
]  # (task, tokens present, who brings them, now_ns)


def _no_grant(task: int, present: int, brings: int | None, now_ns: int) -> None:
    raise TypeError("a pool that receives no KV has granted blocks")


@dataclass(frozen=True, slots=True)
class Calls:
    """The callbacks of a pool's clients; each receives a task and the time in nanoseconds.

    ``begun``: the first layer of a prompt's KV is computed. ``done``: a task is over. ``failed``: a task was refused;
    its request goes no further. ``granted``: a client has blocks for a task's KV; so many tokens of it need not be
    sent, and they may come with the KV of another task. Without ``notify`` nobody waits for the tasks, and a client
    may report none.
    ``waited`` says the same of each op of the pool: tasks of an op that nobody waits for need not be reported.
    """

    done: Called
    begun: Called
    failed: Callable[[int, int, str], None]  # (task, now_ns, reason)
    notify: bool
    granted: Granted = _no_grant
    waited: tuple[bool, ...] = ()


def column_of(columns: Sequence[Ints]) -> list[int]:
    """Return the columns of a pool's ops joined to one, in the order of the task numbers."""
    return [value for column in columns for value in column.tolist()]


class Transfer(Protocol):
    """A way to or from memories, whose bandwidth is shared by all transfers."""

    def __call__(self, size: int, over: Over, now_ns: int, alone_ns: int | None = None) -> None:
        """Move ``size`` bytes, and call ``over`` as that is done; with ``alone_ns`` it takes at least so long."""


# (bytes, now_ns) → when they have moved, as nobody meets them and nothing else happens before; else −1, and none has
Passing: TypeAlias = Callable[[int, int], int]
Connect: TypeAlias = Callable[[tuple[int, ...]], Transfer]  # places among the program's memories → the way
Bring: TypeAlias = Callable[
    [int, Callable[[int], None], int], None
]  # (bytes, what follows at now_ns, now_ns)


@mypyc_attr(allow_interpreted_subclasses=True)
class PoolClient:
    """One client. ``deliveries`` is what leaves it, ``plans`` what it decides, if that is a resource of its own.

    At any instant the deliveries of all clients come before all plans.
    """

    __slots__ = ()

    index: int

    @property
    @abstractmethod
    def deliveries(self) -> Resource:
        """The resource that hands tasks over; woken after ``submit`` where there are no plans."""
        raise NotImplementedError(f"{type(self).__name__} has no deliveries")

    @property
    def plans(self) -> Resource | None:
        """The resource that decides what is served next; woken after ``submit``."""
        return None

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set what to call as the next instant of the deliveries, or of the plans, may have changed."""

    def take_turns(self, device: SharedDevice) -> None:
        """Use a device together with other clients, one piece of work at a time."""
        raise TypeError(f"{type(self).__name__} takes no turns on a device")

    def connect(self, connect: Connect) -> None:
        """Connect the client to the memories that it reads or writes. Only kinds with memories need this."""

    @property
    def looks_ahead(self) -> bool:
        """Whether ``look_ahead`` was called, and the client can make use of it."""
        return False

    @property
    def none_awaited(self) -> bool:
        """Whether nobody awaits any task that the client has in hand, and it fires no more until another comes."""
        return False

    def look_ahead(self, connect: Callable[[tuple[int, ...]], Passing]) -> None:
        """Set what moves bytes at once that meet nobody, over the same ways as ``connect``."""

    @abstractmethod
    def submit(self, task: int, now_ns: int) -> int | None:
        """Queue a task that is ready now.

        Return the next instant of ``plans``, or of ``deliveries`` where there are none. None lets the engine ask.
        """
        raise NotImplementedError(f"{type(self).__name__} takes no tasks")

    @property
    def takes_known(self) -> bool:
        """Whether ``submit_known`` may be called in place of ``submit``; it is not called where anybody waits."""
        return False

    @property
    def takes_known_amid(self) -> bool:
        """Whether ``submit_known`` may be called for some tasks while others are submitted as they are ready.

        Somebody may wait for them; nobody looks at loads.
        """
        return False

    def earliest_ns(self, tasks: Sequence[int], at_ns: Sequence[int]) -> list[int]:
        """Return the instants before which known tasks do not leave; only who takes tasks amid others is asked.

        They come at ``at_ns`` and leave in this order.
        """
        raise TypeError(f"a {type(self).__name__} learns of its tasks as they are ready")

    @property
    def takes_promises(self) -> bool:
        """Whether ``promise`` may be called, before the first task comes."""
        return False

    def promise(self, at_ns: Sequence[int]) -> None:
        """Take note that its tasks will be submitted one by one, none earlier than at its instant of ``at_ns``.

        These are in order of time. What follows until the next of them may be computed ahead. The resource of
        ``deliveries`` may be another one from then on.
        """
        raise TypeError(f"a {type(self).__name__} relies on no promise")

    def hand_on(self, take: Callable[[int, int], None]) -> None:
        """Call ``take(task, end_ns)`` as soon as an end is known after a promise, and not ``done`` at its instant."""
        raise TypeError(f"a {type(self).__name__} relies on no promise")

    def submit_ahead(self, task: int, at_ns: int, senders: Sequence[int], first: int) -> int | None:
        """Queue a task that will be ready at ``at_ns``, amid known ones. Return as ``submit`` does.

        Of those from ``first`` on that are ready at one instant, the one with the least sender comes first.
        """
        raise TypeError(f"a {type(self).__name__} learns of its tasks as they are ready")

    def submit_known(self, tasks: list[int], at_ns: list[int]) -> None:
        """Queue tasks that will be ready at these instants, in order of time and after all that are known."""
        raise TypeError(f"a {type(self).__name__} learns of its tasks as they are ready")

    def withdraw(self, task: int, now_ns: int) -> int | None:
        """Take back a task that was announced or submitted, and that nobody waits for any more.

        It is never reported as done. The step, pass or read that it takes part in goes on; from the next one on it
        takes neither time nor memory. Nothing happens if it is over. Returns what ``submit`` does.
        """
        raise TypeError(f"{type(self).__name__} takes no task back")

    def leaves_ns(self, task: int, now_ns: int) -> int:
        """Return when no work may be left of a task that was taken back; ``now_ns`` where none is.

        At a later instant it may be asked again.
        """
        return now_ns

    def ask(self, task: int, now_ns: int) -> int | None:
        """Queue a task that was routed here and whose KV another client has or computes.

        As soon as its blocks are free they are reserved, and ``Calls.granted`` is called; ``bring`` follows. Return
        as ``submit`` does.
        """
        raise TypeError(f"no KV is ever sent to a {type(self).__name__}")

    def bring(self, task: int, now_ns: int) -> int | None:
        """Note that the KV of a task that had asked for blocks is here. Return as ``submit`` does."""
        raise TypeError(f"no KV is ever sent to a {type(self).__name__}")

    def let_go(self, task: int, now_ns: int) -> int | None:
        """Free the KV of a prompt that no client awaits any more. Return as ``submit`` does."""
        raise TypeError(f"a {type(self).__name__} keeps no KV for other clients")

    def hold(self, task: int, now_ns: int) -> None:
        """Let a task whose context is looked up, or whose KV waits for memory, take its place; ``submit`` follows."""
        raise TypeError(f"{type(self).__name__} holds no task for its context")

    def await_data(self, task: int) -> None:
        """Take note of a task that was routed here and whose context or data is on the way; ``submit`` follows."""

    def watch(self, tokens: Mapping[int, list[int]], written: Callable[[int, int, int], None]) -> None:
        """Call ``written(task, token, now_ns)`` when a token in ``tokens`` is generated; each list is reversed."""
        raise TypeError(f"{type(self).__name__} writes no answers")

    def keep(self, task: int, now_ns: int, bring: Bring | None = None) -> None:
        """Keep the context of a finished retrieval, extended by the request that used it.

        ``bring`` moves its bytes to the client; without it they are there.
        """
        raise TypeError(f"{type(self).__name__} keeps no contexts")

    @property
    def keeps_for_good(self) -> bool:
        """Whether a context that was kept can always be found as it is."""
        return False

    def has_kept(self, task: int) -> bool:
        """Return whether ``keep`` would change nothing at present: all of the context is here."""
        return False

    def context_ns(self, task: int) -> int | None:
        """Return the time to find and read a retrieval's context if nobody else reads; None if it is not here."""
        raise TypeError(f"{type(self).__name__} keeps no contexts")

    # What a fleet may ask, whose clients come and go.

    def on_renewed(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set what to call as another client takes this place. Only a slot needs this."""

    def stop(self, now_ns: int) -> None:
        """End at ``now_ns``: bring the totals to this instant; what is in hand never leaves."""
        raise TypeError(f"{type(self).__name__} never stops")

    def progress(self, task: int) -> Progress:
        """Return how far a task was that the client had in hand as it stopped (``stop``)."""
        return NOTHING

    def kv_tokens(self, task: int, now_ns: int) -> int:
        """Return the tokens of a sequence that decodes here and whose KV is computed by now; 0 for another task."""
        return 0

    def read_kept(self, task: int, now_ns: int) -> tuple[int, int] | None:
        """Return the bytes of a task's blocks that tiers have which survive this client, and when they are read.

        None where there are none.
        """
        return None

    def take_kept(self, task: int, now_ns: int) -> None:
        """Put the blocks of a task that came from the tiers of a lost client into the first tier."""
        raise TypeError(f"a {type(self).__name__} has no tiers")

    def inherit(self, before: PoolClient, now_ns: int) -> None:
        """Begin with the tiers of the client that was in this place ``before``, as far as they survive it."""

    def resume(self, task: int, last_ps: int, now_ns: int) -> int | None:
        """Queue a task that goes on from the tokens that another client has given it, the last at ``last_ps``.

        Its KV is computed anew, unless it is marked as kept. Returns what ``submit`` does.
        """
        raise TypeError(f"a {type(self).__name__} goes on with no task of another client")

    def set_pace(self, factor: float, now_ns: int) -> None:
        """Let each step that is planned from ``now_ns`` on take ``factor`` times its time, at least 1."""
        raise TypeError(f"{type(self).__name__} has one pace")

    def queue_length(self, now_ns: int) -> int:
        """Return the number of tasks submitted, or on their way here, that had not begun before ``now_ns``."""
        raise TypeError(f"{type(self).__name__} does not report its queue")

    def kv_use(self, now_ns: int) -> float:
        """Return the share of its KV blocks that is in use."""
        raise TypeError(f"{type(self).__name__} has no KV")

    # What a run in windows asks, whose tasks change their requests.

    def holds(self, first: int, last: int) -> bool:
        """Return whether one of the tasks ``first`` … ``last − 1`` is in hand."""
        raise TypeError(f"the tasks of a {type(self).__name__} keep their requests")

    def take_log(self) -> bytes:
        """Return the steps that were logged since the last call, and forget them; nothing where none are logged."""
        return b""

    def take_abandoned(self) -> list[int]:
        """Return the ends of prefills that were in vain and are not in the log, and forget them."""
        return []

    # What routing may ask.

    @property
    def countable(self) -> bool:
        """Whether the client can report its unfinished tasks as they come and end (``count``)."""
        return False

    def count(self, unfinished: Unfinished, place: int) -> None:
        """Report from now on what comes and ends, as client ``place``; its ``deliveries`` must then be fired."""
        raise TypeError(f"{type(self).__name__} reports no counts")

    @abstractmethod
    def outstanding(self, now_ns: int) -> int:
        """Return the number of tasks submitted and not finished before ``now_ns``."""
        raise NotImplementedError(f"{type(self).__name__} counts no tasks")

    @abstractmethod
    def queued_tokens(self, now_ns: int) -> int:
        """Return the known remaining work, in the client's own unit (tokens, or core time)."""
        raise NotImplementedError(f"{type(self).__name__} counts no work")
