"""The contract between an LLM client and its batching policy, method by method.

A client calls ``BatchingPolicy.plan`` at each planning instant: with look-ahead 0 when the step before is over, with
look-ahead 1 when the step before begins (and again when it ends, if nothing was planned), and with pipeline
parallelism when a micro-batch leaves the last rank. The policy reads the state below, changes it through the methods
below, and commits at most one step, one run of decode steps or one gang. The client does the rest: it works out how
long the step takes, advances the clock, delivers the answers, frees seats and blocks, and calls ``plan`` again.

What must be true when ``plan`` returns:

1. It returned True and called exactly one ``commit_*`` method, or it returned False and called none. After False the
   client asks again when the step in flight ends or a task arrives.
2. ``batch.free`` is not negative, and at most ``max_num_seqs`` sequences are in ``batch.running``.
3. Every chunk in ``prefills`` was taken by ``batch.admit`` or ``batch.take_chunk`` in this plan. The blocks of the
   decodes were taken by ``batch.take_or_preempt`` or ``take_iteration``; for ``commit_decodes`` they may be free.
4. A step has at most ``max_num_batched_tokens`` tokens (a prompt each token, a decode ``tokens_per_decode``), unless
   the policy is marked ``whole_prompts``.
5. Every task taken from ``waiting`` was admitted or entered, and every preempted task was given to ``requeue``.
6. A task in ``tasks.kept`` has its KV computed (by another client, or before it was swapped out): it enters, it is
   not admitted. ``admit_waiting`` (batching/admission.py) does both, and keeps points 2 to 6 for what it admits.

A policy from outside the package is held to these points as it runs: its first breach ends the run with an error that
names the policy and the line.

All queries can be asked at any time, in any order and any number of times: none changes what a later call does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import ClassVar, Final, Protocol, TypeAlias

from hermes_flow.pools.llm.blocks import Found

UNLIMITED: Final = 1 << 40

Prefills: TypeAlias = list[
    tuple[int, int]
]  # (tokens of the chunk, tokens of the sequence computed before it)
Completed: TypeAlias = list[tuple[int, int]]  # (admission number, task)


class Waiting(Protocol):
    """The tasks that the scheduler has seen and not admitted, in the packing order."""

    def __len__(self) -> int:
        """Return the number of waiting tasks."""

    def __getitem__(self, place: int) -> int:
        """Return the task at the head; only ``place`` 0 is known in every packing order."""

    def __iter__(self) -> Iterator[int]:
        """Yield the tasks in order; slower than the head, since a sorted queue sorts all of them."""

    def popleft(self) -> int:
        """Remove and return the head, which is admitted or entered in the same plan."""


class SequenceSizes(Protocol):
    """The data of a pool's tasks that a policy may read, by task number."""

    @property
    def prompt(self) -> list[int]:
        """Tokens of each prompt."""

    @property
    def generated(self) -> list[int]:
        """The tokens generated before the last preemption or before its KV arrived; else 0.

        A preempted sequence prefills its prompt and these.
        """

    @property
    def output(self) -> list[int]:
        """True lengths of the answers. No engine knows them; only the baseline ``static`` reserves by them."""

    @property
    def kept(self) -> dict[int, int]:
        """The computed tokens of waiting tasks whose KV is copied in from elsewhere, by task."""

    @property
    def asking(self) -> set[int]:
        """The tasks in ``kept`` whose KV is still to be sent here: ``enter`` only reserves their blocks."""


class Loads(Protocol):
    """A client that loads KV from tiers of memory before it schedules a request."""

    def load_first(self, task: int, found: Found) -> bool:
        """Take the task at the head of the queue aside, if blocks of it are to be loaded; return whether they are."""


class Batch(Protocol):
    """The sequences with a seat, their KV blocks, and how a policy takes both.

    Sequences are named by their admission number, which rises. Decoding sequences are counted, not listed: each of
    them gains one token in every step with decodes, so no method takes time in proportion to their number.
    """

    # Queries. They change nothing.

    @property
    def decodes(self) -> int:
        """Number of sequences that decode in the next step with decodes."""

    @property
    def running(self) -> Mapping[int, int]:
        """Admission → task of every sequence with a seat, in order of admission.

        Besides those that decode: those that prefill, and those whose last token is planned and not delivered.
        """

    @property
    def prefilling(self) -> MutableMapping[int, int]:
        """Admission → tokens computed, of sequences whose prompt was cut.

        The policy keeps it: it adds a sequence when it cuts its prompt, and removes it with the last chunk.
        """

    @property
    def block_size(self) -> int:
        """Tokens of one block."""

    @property
    def free(self) -> int:
        """Number of free blocks."""

    @property
    def copy_ps(self) -> int:
        """Time of the copies of KV in this plan so far, in picoseconds; a step that copies lasts that much longer.

        Where it is not 0 the plan ends with ``commit_step``, even if nothing is computed.
        """

    @property
    def loads(self) -> Loads | None:
        """The client, where KV is loaded from tiers of memory (``offload``); ``admit_waiting`` asks it."""

    def needed_blocks(self) -> int:
        """Return the number of blocks that the next decode of all decoding sequences takes."""

    def steps_with_blocks(self, limit: int) -> int:
        """Return the number of decode steps, at most ``limit``, for which free blocks suffice.

        Asked where ``decodes`` is above 0.
        """

    def find(self, task: int) -> Found:
        """Return (free blocks needed to admit a waiting task, its tokens that are computed already, cached blocks).

        It holds until the next call that takes or frees blocks; ``admit`` is given it as it is.
        """

    def blocks_to_continue(self, computed: int, chunk: int) -> int:
        """Return the number of blocks that a chunk of ``chunk`` tokens takes after ``computed`` ones."""

    # Commands. Each takes effect at once, also on the queries above.

    def admit(self, task: int, found: Found, chunk: int, start_ps: int) -> int:
        """Give a task taken from the queue a seat and the blocks of its first ``chunk`` tokens; return its admission.

        Called with a free seat, ``found[0] <= free`` and ``chunk`` of at least 1 token, at most those that are not
        computed. ``start_ps`` is the scheduler's ``tail_ps``. The caller puts (chunk, ``found[1]``) into
        ``prefills``, and the sequence into ``completed`` if the chunk is all that is left, else into ``prefilling``.
        """

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of a further chunk of a sequence in ``prefilling``; as many as needed are free."""

    def take_iteration(self) -> None:
        """Take the blocks of the next decode of all decoding sequences, which are free."""

    def reclaim(self, task: int) -> bool:
        """Free blocks of a request that does not run, for waiting ``task`` or (−1) a running one; False for none."""

    def take_or_preempt(self, preempted: list[int]) -> None:
        """Take the blocks of the next decode, preempting sequences from the tail while none is free.

        Called before anything is admitted in this plan. Preempted tasks are appended to ``preempted``, which goes to
        ``requeue``. The step is then committed with all of ``decodes``, or nothing is committed where none is left.
        """

    def preempt_last(self, preempted: list[int]) -> int:
        """Take seat and blocks from the sequence admitted last; return its admission number."""

    def hold_gang(self, gang: Sequence[int], blocks: int) -> None:
        """Let a gang of admitted tasks, which are all that run, hold ``blocks`` in all until it is delivered."""


class Scheduler(Protocol):
    """An LLM client, or one of the micro-batches of its pipeline ranks, at a planning instant."""

    @property
    def batch(self) -> Batch:
        """The running sequences and the KV blocks."""

    @property
    def waiting(self) -> Waiting:
        """The queue."""

    @property
    def tasks(self) -> SequenceSizes:
        """The sizes of all tasks of the pool."""

    @property
    def max_num_seqs(self) -> int:
        """The number of seats. A micro-batch has the seats that the others do not use."""

    @property
    def max_num_batched_tokens(self) -> int:
        """The token budget of one step."""

    @property
    def tokens_per_decode(self) -> int:
        """The tokens that a decode uses of the token budget: 1, or more with speculative decoding."""

    @property
    def tail_ps(self) -> int:
        """The begin of the step that is planned now, in picoseconds."""

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences hold seats and blocks until the running step ends."""

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue, the one preempted last first.

        Called once for each plan that preempted, before anything is admitted.
        """

    def enter(self, task: int) -> None:
        """Give a task taken from the queue, that is in ``tasks.kept``, a seat and blocks.

        Called with a free seat and enough free blocks. The sequence is one of ``batch.decodes`` from now on, and the
        block of its next token is taken. A task in ``tasks.asking`` takes blocks and no seat; it comes back to the
        head of the queue when its KV is here.
        """

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step of prefill chunks and decodes.

        ``decodes`` is 0 or ``batch.decodes``, whose blocks are taken. ``completed`` are the prefills that end in the
        step: each of them emits a token, and decodes from the next step on or ends.
        """

    def commit_decodes(self, limit: int) -> None:
        """Plan up to ``limit`` steps in which all sequences decode and nothing else happens.

        Called with ``batch.decodes`` above 0 and the blocks of the first step free or taken; the run takes the others
        itself and ends before blocks run out, when a sequence ends, and at the next arrival where nobody waits. A
        policy that could admit a waiting task earlier than that gives a lower limit.
        """


class GangScheduler(Scheduler, Protocol):
    """A scheduler that can also commit gangs: a client with a single batch at a time."""

    def commit_gang(self, members: Completed, longest: int) -> None:
        """Plan a whole gang: prompts are padded to ``longest`` and decoded until the last one ends.

        Called with no other sequence running; ``batch.hold_gang`` has taken the blocks that it needs to its end.
        """


class BatchingPolicy(Protocol):
    """A policy that chooses the sequences of the next step.

    A policy is a frozen dataclass whose fields are its settings: ``batching: {policy: name, field: value}``. Each
    client has an object of its own, made of the same settings, so other fields (``init=False``) may keep state.
    """

    gang: ClassVar[bool]
    """Whether it plans gangs (``commit_gang``); False where it is not given. Gangs do not go with everything."""

    whole_prompts: ClassVar[bool]
    """Whether its steps may exceed the token budget by one long prompt; False where it is not given."""

    def plan(self, client: Scheduler) -> bool:
        """Plan what begins at ``client.tail_ps``; return False if there is nothing to do.

        The module's docstring lists what must be true afterwards.
        """
