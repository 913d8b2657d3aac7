"""Checks that batching policies of users keep the contract of pools/llm/scheduler.py.

Such a policy plans on a view of its client that checks every commit, and what is left when it returns. A policy that
breaks the contract would give wrong answers in silence, or stop the run somewhere else.
"""

from __future__ import annotations

from typing import ClassVar, cast

from hermes_flow.errors import InternalError, PluginError
from hermes_flow.pools.llm.scheduler import (
    Batch,
    BatchingPolicy,
    Completed,
    GangScheduler,
    Prefills,
    Scheduler,
    SequenceSizes,
    Waiting,
)


class CheckedPolicy:
    """A policy that raises a PluginError with its ``name`` at its first breach of the contract."""

    gang: ClassVar[bool] = False
    whole_prompts: ClassVar[bool] = False

    def __init__(self, policy: BatchingPolicy, name: str) -> None:
        self._policy = policy
        self._name = name
        self._exceeds = bool(getattr(policy, "whole_prompts", False))
        self._views: dict[int, CheckedScheduler] = {}  # by the identity of the client or micro-batch

    def plan(self, client: Scheduler) -> bool:
        """Let the policy plan, and check what it has done; raises PluginError."""
        view = self._views.get(id(client))
        if view is None:
            whole = cast(GangScheduler, client)  # only policies of gangs commit them
            view = self._views[id(client)] = CheckedScheduler(whole, self._exceeds)
        view.begin()
        planned = self._policy.plan(view)
        problem = view.problem(planned)
        if problem is not None:
            code = type(self._policy).plan.__code__
            raise PluginError(self._name, problem, code.co_filename, code.co_firstlineno, "plan")
        return planned


class CheckedScheduler:
    """The scheduler for a checked policy; a forbidden commit raises an InternalError."""

    def __init__(self, client: GangScheduler, exceeds_budget: bool) -> None:
        self._client = client
        self._exceeds_budget = exceeds_budget
        self._commits = 0
        self._tasks = 0  # waiting and running, as the plan began
        self._last_admission = 0
        self._completed: set[int] = set()  # admissions of prefills that end in the step
        self._entered: set[int] = set()  # tasks

    def begin(self) -> None:
        """Remember the state before a plan."""
        running = self._client.batch.running
        self._commits = 0
        self._tasks = len(self._client.waiting) + len(running)
        self._last_admission = max(running, default=0)
        self._completed.clear()
        self._entered.clear()

    def problem(self, planned: object) -> str | None:
        """Return the first breach of the contract in the finished plan, or None."""
        client, batch = self._client, self._client.batch
        if planned is not True and planned is not False:
            return f"plan() returned {planned!r}; expected True or False"
        if planned != bool(self._commits):
            return f"plan() returned {planned} and committed {'a step' if self._commits else 'nothing'}"
        lost = self._tasks - len(client.waiting) - len(batch.running)
        if lost > 0:
            return f"{lost} tasks were taken from the queue or preempted, and neither admitted nor given to requeue()"
        for admission, task in batch.running.items():
            if admission > self._last_admission and not self._goes_on(admission, task):
                return f"task {task} was admitted and is neither in completed nor in batch.prefilling"
        return None

    @property
    def batch(self) -> Batch:
        """The running sequences and the KV blocks."""
        return self._client.batch

    @property
    def waiting(self) -> Waiting:
        """The queue."""
        return self._client.waiting

    @property
    def tasks(self) -> SequenceSizes:
        """The sizes of all tasks of the pool."""
        return self._client.tasks

    @property
    def max_num_seqs(self) -> int:
        """Seats."""
        return self._client.max_num_seqs

    @property
    def max_num_batched_tokens(self) -> int:
        """The token budget of one step."""
        return self._client.max_num_batched_tokens

    @property
    def tokens_per_decode(self) -> int:
        """The tokens that a decoding sequence uses of the token budget."""
        return self._client.tokens_per_decode

    @property
    def tail_ps(self) -> int:
        """The begin of the step that is planned now."""
        return self._client.tail_ps

    @property
    def deliveries_pending(self) -> bool:
        """Whether ended sequences still hold seats and blocks."""
        return self._client.deliveries_pending

    def requeue(self, preempted: list[int]) -> None:
        """Put preempted tasks at the head of the queue; finished ones do not return."""
        before = len(self._client.waiting)
        self._client.requeue(preempted)
        self._tasks -= len(preempted) - (len(self._client.waiting) - before)

    def enter(self, task: int) -> None:
        """Give a task whose KV is computed a seat and blocks."""
        if task not in self._client.tasks.kept:
            raise InternalError(f"enter({task}): the KV of the task is not computed; it is to be admitted")
        if task in self._client.tasks.asking:
            self._tasks -= 1  # it leaves the queue until its KV is here
        else:
            self._entered.add(task)
        self._client.enter(task)

    def commit_step(self, prefills: Prefills, decodes: int, completed: Completed) -> None:
        """Plan one step, if the contract allows it."""
        batch = self._client.batch
        self._begin_commit()
        if decodes not in (0, batch.decodes):
            raise InternalError(f"decodes is {decodes}; expected 0 or all {batch.decodes} decoding sequences")
        if not prefills and not decodes and not batch.copy_ps:
            raise InternalError("a step without prefills and decodes")
        if any(chunk < 1 for chunk, _ in prefills):
            raise InternalError("a prefill of less than 1 token")
        tokens = decodes * self._client.tokens_per_decode + sum(chunk for chunk, _ in prefills)
        if tokens > self._client.max_num_batched_tokens and not self._exceeds_budget:
            raise InternalError(
                f"a step of {tokens} tokens, of which {self._client.max_num_batched_tokens} are allowed"
            )
        if decodes:
            self._check_blocks_of_decodes()
        self._completed.update(admission for admission, _ in completed)
        self._client.commit_step(prefills, decodes, completed)

    def commit_decodes(self, limit: int) -> None:
        """Plan decode steps, if the contract allows them."""
        self._begin_commit()
        if not self._client.batch.decodes:
            raise InternalError("commit_decodes() without a decoding sequence")
        if limit < 1:
            raise InternalError(f"commit_decodes({limit}); expected at least 1")
        self._check_blocks_of_decodes()
        self._client.commit_decodes(limit)

    def commit_gang(self, members: Completed, longest: int) -> None:
        """Plan a gang."""
        self._begin_commit()
        self._completed.update(admission for admission, _ in members)
        self._client.commit_gang(members, longest)

    def _begin_commit(self) -> None:
        batch = self._client.batch
        self._commits += 1
        if self._commits > 1:
            raise InternalError("a second commit in one plan")
        if batch.free < 0:
            raise InternalError(f"{-batch.free} more KV blocks were taken than are free")
        if len(batch.running) > self._client.max_num_seqs:
            raise InternalError(f"{len(batch.running)} sequences run on {self._client.max_num_seqs} seats")

    def _check_blocks_of_decodes(self) -> None:
        batch = self._client.batch
        if batch.steps_with_blocks(1) < 1:
            raise InternalError(
                f"the next decode takes {batch.needed_blocks()} KV blocks, of which {batch.free} are free; "
                "take_or_preempt() preempts sequences"
            )

    def _goes_on(self, admission: int, task: int) -> bool:
        return (
            admission in self._completed
            or task in self._entered
            or admission in self._client.batch.prefilling
        )
