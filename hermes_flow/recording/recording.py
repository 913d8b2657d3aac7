"""The recording of a simulation: columns in integer nanoseconds, before any statistics."""

from __future__ import annotations

from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.recording.client_states import States
from hermes_flow.recording.links import LinkRecord
from hermes_flow.recording.travel import Travel

STATUSES = ("completed", "failed", "rejected", "timed_out")
COMPLETED, FAILED, REJECTED, TIMED_OUT = range(len(STATUSES))
ENDED = ("completed", "failed", "was rejected", "timed out")
"""How a request of each status ended, as a verb."""

STEP_FIELDS = ("start_ps", "end_ps", "steps", "decodes", "decode_context", "prefill_tokens", "joined")


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One op's tasks, a row per request; −1 if it did not happen (or the request does not take the op).

    ``client`` counts within the pool. For ``generate`` ops ``start_ns`` is the start of the first step that
    scheduled the prompt and ``first_ns`` the end of the step that emitted the first token; for sequential
    ops ``first_ns`` is absent.
    """

    client: Ints
    ready_ns: Ints
    start_ns: Ints
    finish_ns: Ints
    first_ns: Ints | None = None
    transfer_ns: Ints | None = None  # between ready and start, on the network
    bytes: Ints | None = None  # moved to the client for this op
    preemptions: Ints | None = None
    cached_tokens: Ints | None = None
    tier_hits: dict[str, Ints] | None = None  # tier → tokens of these that were loaded from it
    cut_ns: Ints | None = None  # when the work on a task that was taken back was over; None where none was
    cut_prompt: Ints | None = None  # tokens of its prompt that were computed or found
    cut_answer: Ints | None = None  # tokens of its answer that were generated
    reserved_ns: Ints | None = (
        None  # when a decode client had memory for its KV; None: no prompt waits for it
    )
    adapter_load_ns: Ints | None = None  # the time to load its adapter; None where no client has adapters
    adapter_wait_ns: Ints | None = None  # how long others passed it, because its adapter had no place
    alone_ns: Ints | None = (
        None  # what a read takes while nobody else reads; None where none share a bandwidth
    )


@dataclass(frozen=True, slots=True)
class ClientRecord:
    """Totals of one client over the run; ``busy_ns`` counts core-time on sequential clients.

    ``segments`` has a row per stretch of equal steps (int64, columns STEP_FIELDS): ``steps`` consecutive
    forward passes that begin with ``decodes`` decoding sequences over ``decode_context`` computed tokens and
    grow by one token per sequence and step. Only a stretch of one step has ``prefill_tokens``; ``joined``
    sequences emitted a token in it at the end of their prefill and go on to decode. A row of no steps stands
    for a sequence that came computed, from another client or from host memory: it had emitted a token then.
    A row of no steps with ``decodes`` holds a further token that each of them gained in the step before, by
    speculation. Where several micro-batches are in flight their rows come one after the other, ``lane_rows`` of each.
    With data-parallel attention ``segments`` are the steps of all ranks together, and ``rank_segments`` those of each
    rank, by which its sequences get their tokens.
    ``resume_gaps_ps`` are the inter-token gaps of sequences that were preempted and resumed.
    """

    pool: int
    client: int
    capacity: int  # cores of a sequential client; 1 for an LLM client
    tasks: int
    busy_ns: int
    segments: NDArray[np.int64] | None = None
    resume_gaps_ps: Ints | None = None
    kv_peak_blocks: int = 0
    prefill_pairs: float = 0.0  # query-key pairs of all chunks: Σ chunk·(context + chunk/2)
    lane_rows: tuple[int, ...] = ()
    rank_segments: tuple[NDArray[np.int64], ...] = ()
    context_ps: int = 0  # by which its steps grow per token of decode context
    even_gaps: Ints | None = None  # without steps: inter-token gaps in ps, and how many there are of each
    passes: int | None = None  # of a client that serves in passes
    seats: int | None = None  # tasks side by side, each a thread of the trace; None: ``capacity``
    seat: str = "core"
    tokens: int | None = None  # that it processed, where that is not what its steps, or the ops, say
    spent_usd: float | None = None  # where it is paid by use
    own: Any = None  # what only its kind reads
    links: tuple[LinkRecord, ...] = ()  # to memories of its own, by names that are its own
    states: States = ()  # of one that comes and goes (client_states.py); empty: it is up all the time

    def lanes(self) -> list[NDArray[np.int64]]:
        """The segments of each micro-batch, or of the only batch."""
        if self.segments is None:
            return []
        if not self.lane_rows:
            return [self.segments]
        return np.split(self.segments, np.cumsum(self.lane_rows)[:-1])


@dataclass(frozen=True, slots=True)
class Recording:
    """A finished run of ``program``: times per request, per op and per client.

    ``status`` counts in ``STATUSES``. ``failures`` maps a request that has not completed to the reason.
    """

    program: Program
    arrival_ns: Ints
    finish_ns: Ints
    status: NDArray[np.int8]
    ops: tuple[OpRecord, ...]
    clients: tuple[ClientRecord, ...]
    end_ns: int
    events: int
    wall_s: float
    cpu_s: float
    links: tuple[LinkRecord, ...] = ()
    failures: dict[int, str] = field(default_factory=dict)
    retried: dict[int, int] = field(
        default_factory=dict
    )  # request → its tasks that began anew or went on on another client
    migrated: dict[int, int] = field(
        default_factory=dict
    )  # request → those of them that went on with their answer
    given_up: dict[int, int] = field(default_factory=dict)  # request → how often its user gave up
    lost_tokens: dict[int, int] = field(
        default_factory=dict
    )  # request → tokens of tries that came to nothing
    lost_answers: dict[int, int] = field(default_factory=dict)  # request → those of answers among them
    lost_ns: dict[int, int] = field(default_factory=dict)  # request → the time that was spent on these
    admitted_ns: Ints | None = None  # when a gateway let each request in (-1: never); None without a gateway
    tries: Ints | None = None  # how often each request came to the gateway
    most_queued: int = 0  # at the gateway
    travel: Travel | None = None  # between users and sites; finish_ns is then when the user has the answer
