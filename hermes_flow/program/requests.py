"""The workload as columns, with one entry per request in order of arrival."""

from __future__ import annotations

from hermes_flow.program.image_ids import ImageIds
from hermes_flow.program.prefixes import Prefixes, SessionPrefixes
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.stage_sizes import StageSizes
from hermes_flow.program.units import Ints


@dataclass(frozen=True, slots=True)
class Requests:
    """The workload as columns; ``arrival_ns`` is sorted.

    With ``concurrency`` set the run is a closed loop: at most that many requests are in the system, and the
    next one arrives ``think_ns`` after any one finishes; ``arrival_ns`` is then all zero and arrivals are
    recorded as they happen.

    With ``previous`` set there are sessions: a request arrives ``think_ns`` after request ``previous`` (a lower
    number; -1: none, it arrives at ``arrival_ns``) finishes. The ``arrival_ns`` of such a follow-up is when its
    session begins.

    With ``timeout_ns`` somebody gives up on a request that is not answered so long after its arrival (-1: never).
    """

    arrival_ns: Ints
    input_tokens: Ints
    output_tokens: Ints
    session: Ints | None = None
    priority: Ints | None = None
    model: Ints | None = None  # which of ``models`` each request asks for
    models: tuple[str, ...] = ()
    pipeline: Ints | None = None  # which of ``pipelines`` each request takes, where several run at once
    pipelines: tuple[str, ...] = ()
    prefixes: Prefixes | SessionPrefixes | None = None
    output_limit: Ints | None = None  # tokens that each answer may have (None: those that it has)
    ignore_eos: Ints | None = None  # 1: the answer goes on to its limit; None: none does
    stages: StageSizes | None = None  # sizes and times of single stages, where they are known
    concurrency: int | None = None
    think_ns: Ints | None = None
    previous: Ints | None = None
    timeout_ns: Ints | None = None
    traffic: Ints | None = None  # which of ``classes`` each request belongs to
    classes: tuple[str, ...] = ()
    tenant: Ints | None = None  # which of ``tenants`` has sent each request (-1: none)
    tenants: tuple[str, ...] = ()
    adapter: Ints | None = None  # which of ``adapters`` each request asks for (-1: none)
    adapters: tuple[str, ...] = ()
    site: Ints | None = None  # at which of ``sites`` each request's user is, as a trace says
    sites: tuple[str, ...] = ()
    images: Ints | None = None  # of each request; None: no request has any
    image_ids: ImageIds | None = None  # of these images; None: all are different
    notes: tuple[str, ...] = ()  # what a user should know about where they come from

    def __len__(self) -> int:
        return len(self.arrival_ns)

    @property
    def wait_for_answers(self) -> bool:
        """Whether some arrive only after others have finished."""
        return self.concurrency is not None or self.previous is not None
