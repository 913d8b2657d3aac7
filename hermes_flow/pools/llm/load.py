"""The load of an LLM client as running sums, by which routers compare clients.

A task counts from the moment it is routed until its last token is delivered. Of its answer only what was delivered
counts as known: that a sequence ends with the step in flight is not to be seen from outside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from hermes_flow.pools.llm.decode_run import steps_begun
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.program.units import NEVER, PS_PER_NS

_UNLIMITED = 1 << 40
_MANY = 16


class LLMLoad:
    """The load figures of one client from all events before ``now_ps``; the client reports its plans to it.

    ``unfinished`` tasks have prompts of ``input_tokens``; ``finished`` ones had answers of ``finished_tokens``.
    Whoever sets ``now_ps`` calls ``settle`` if it is past ``ends_ps``, when the next tasks finish. ``backlog``
    returns the tokens of prompts that no plan has scheduled yet.
    """

    __slots__ = (
        "_backlog",
        "_brought",
        "_columns",
        "_ending",
        "_generated",
        "_output",
        "_pending",
        "_run_decodes",
        "_run_end_ps",
        "_run_first_ps",
        "_run_growth_ps",
        "_run_next_ps",
        "_run_over",
        "_run_start_ps",
        "_run_steps",
        "_withdrawn",
        "ends_ps",
        "finished",
        "finished_tokens",
        "input_tokens",
        "now_ps",
        "unfinished",
    )

    def __init__(self, columns: LLMTasks, backlog: Callable[[], int]) -> None:
        self.now_ps = 0
        self.ends_ps = NEVER
        self.unfinished = 0
        self.input_tokens = 0
        self.finished = 0
        self.finished_tokens = 0
        self._columns = columns
        self._backlog = backlog
        self._output = 0  # tokens of the answers of unfinished tasks, with a gang's padding
        self._generated = 0  # of these, the tokens of all steps that are planned, but for those of a run
        self._pending: deque[tuple[int, int]] = deque()  # (end, tokens) of steps that may not be over
        # (end, tasks, tokens of their prompts, of their answers with padding, of their answers)
        self._ending: deque[tuple[int, int, int, int, int]] = deque()
        # (end of the step in flight, prompt, answer, tokens of it that were planned) of tasks that were taken back
        self._withdrawn: deque[tuple[int, int, int, int]] = deque()
        self._brought: set[int] = set()  # tasks that came with a token of their answer
        self._run_start_ps = 0
        self._run_decodes = 0  # 0: no run is planned
        self._run_first_ps = 0
        self._run_growth_ps = 0
        self._run_steps = 0  # at most
        self._run_over = 0  # steps that were over when they were last counted
        self._run_next_ps = NEVER  # end of the step after those
        self._run_end_ps = -1  # of a gang: its tokens are known to go with it

    # What routers read.

    def settle(self) -> None:
        """Remove the tasks that finished before ``now_ps``."""
        ending = self._ending
        while ending and ending[0][0] < self.now_ps:
            end_ps, count, prompts, padded, answers = ending.popleft()
            if end_ps == self._run_end_ps:
                self._close_gang()
            self.unfinished -= count
            self.input_tokens -= prompts
            self._output -= padded
            self._generated -= padded
            self.finished += count
            self.finished_tokens += answers
        self.ends_ps = ending[0][0] if ending else NEVER
        if self._withdrawn:
            self._settle_withdrawn()

    def _settle_withdrawn(self) -> None:
        """Remove the tasks whose last step was over before ``now_ps``."""
        withdrawn = self._withdrawn
        while withdrawn and withdrawn[0][0] < self.now_ps:
            _, prompt, answer, generated = withdrawn.popleft()
            self._remove(prompt, answer, generated)
        if withdrawn:
            self.ends_ps = min(self.ends_ps, withdrawn[0][0])

    def _remove(self, prompt: int, answer: int, generated: int) -> None:
        self.unfinished -= 1
        self.input_tokens -= prompt
        self._output -= answer
        self._generated -= generated

    @property
    def kv_tokens(self) -> int:
        """The KV tokens that unfinished sequences hold or will need at once: prompts and answers so far."""
        return self.input_tokens + self._delivered()

    @property
    def backlog_tokens(self) -> int:
        """The prompt tokens that no plan has scheduled yet; a prompt whose KV is sent counts as one."""
        return self._backlog()

    @property
    def work_left_tokens(self) -> int:
        """The unscheduled prompt tokens and undelivered answer tokens; only oracles may read it."""
        return self._output - self._delivered() + self._backlog()

    def _delivered(self) -> int:
        """Tokens of unfinished answers delivered so far."""
        now_ps = self.now_ps
        if self._run_next_ps < now_ps:
            self._go_on()
        tokens = self._generated + self._run_decodes * self._run_over
        pending = self._pending
        if pending:
            while pending and pending[0][0] < now_ps:
                pending.popleft()
            for _, later in pending:
                tokens -= later
        return tokens

    def _go_on(self) -> None:
        """Count the steps of the run that are over by now: most often one or two more than at the last look."""
        now_ps, first_ps, growth_ps = self.now_ps, self._run_first_ps, self._run_growth_ps
        over, next_ps = self._run_over, self._run_next_ps
        if now_ps - next_ps > _MANY * first_ps:
            over = steps_begun(now_ps - self._run_start_ps, first_ps, growth_ps) - 1
            next_ps = self._run_start_ps + (over + 1) * first_ps + growth_ps * ((over + 1) * over // 2)
        while next_ps < now_ps:
            over += 1
            next_ps += first_ps + growth_ps * over
        if over >= self._run_steps:
            over, next_ps = self._run_steps, NEVER
        self._run_over, self._run_next_ps = over, next_ps

    # What the client tells.

    def take(self, task: int, generated: int = 0) -> None:
        """Add a task that was routed here, with ``generated`` answer tokens from another client."""
        self.unfinished += 1
        self.input_tokens += self._columns.prompt[task]
        self._output += self._columns.output[task]
        self._generated += generated
        if generated:
            self._brought.add(task)

    def goes_on(self, generated: int) -> None:
        """Note that the task that was routed here last has ``generated`` tokens of another client already."""
        self._generated += generated

    def drop(self, task: int) -> None:
        """Remove a task that was taken back before any plan of this client saw it."""
        brought = 1 if task in self._brought else 0
        self._remove(self._columns.prompt[task], self._columns.output[task], brought)

    def withdraw(self, task: int, generated: int, end_ps: int) -> None:
        """Remove a task at ``end_ps``, when the step in flight is over; it has ``generated`` planned tokens."""
        self._withdrawn.append((end_ps, self._columns.prompt[task], self._columns.output[task], generated))
        if end_ps < self.ends_ps:
            self.ends_ps = end_ps

    def emit(self, planned_ps: int, end_ps: int, tokens: int) -> None:
        """Note that a step planned at ``planned_ps`` will deliver ``tokens`` when it ends."""
        self._drop_settled(planned_ps)
        self._pending.append((end_ps, tokens))
        self._generated += tokens

    def _drop_settled(self, now_ps: int) -> None:
        pending = self._pending
        while pending and pending[0][0] < now_ps - PS_PER_NS:  # nobody looks further back than that
            pending.popleft()

    def begin_run(self, start_ps: int, decodes: int, first_ps: int, growth_ps: int) -> None:
        """Note a planned run of decode steps; step k, from 0, takes ``first_ps + k·growth_ps``."""
        if self._run_end_ps >= 0:
            self._close_gang()
        self._run_start_ps = start_ps
        self._run_decodes = decodes
        self._run_first_ps = first_ps
        self._run_growth_ps = growth_ps
        self._run_steps = _UNLIMITED
        self._run_over = 0
        self._run_next_ps = start_ps + first_ps

    def end_run(self, closed_ps: int, steps: int, end_ps: int) -> None:
        """Note that the run had ``steps`` steps, which was certain at ``closed_ps``."""
        decodes = self._run_decodes
        self._run_decodes = 0
        self._run_next_ps = NEVER
        self._generated += decodes * steps
        self._drop_settled(closed_ps)
        step_ps = self._run_first_ps + self._run_growth_ps * (steps - 1)
        unsettled = [(end_ps, decodes)]
        while len(unsettled) < steps and end_ps - step_ps >= closed_ps - PS_PER_NS:
            end_ps -= step_ps
            step_ps -= self._run_growth_ps
            unsettled.append((end_ps, decodes))
        self._pending.extend(reversed(unsettled))

    def gang(self, members: Sequence[int], steps: int, end_ps: int) -> None:
        """Note that all members of a gang take part in all ``steps`` of the begun run, and end with it."""
        padded = len(members) * (steps + 1)
        self._run_steps = steps
        self._run_end_ps = end_ps
        self._output += padded - sum([self._columns.output[task] for task in members])

    def end(self, ended: Sequence[int], end_ps: int) -> None:
        """Note that the last tokens of these tasks will be delivered at ``end_ps``."""
        prompts = sum([self._columns.prompt[task] for task in ended])
        answers = sum([self._columns.output[task] for task in ended])
        padded = len(ended) * (self._run_steps + 1) if end_ps == self._run_end_ps else answers
        self._ending.append((end_ps, len(ended), prompts, padded, answers))
        if end_ps < self.ends_ps:
            self.ends_ps = end_ps

    def _close_gang(self) -> None:
        self._generated += self._run_decodes * self._run_steps
        self._run_decodes = 0
        self._run_next_ps = NEVER
        self._run_end_ps = -1
