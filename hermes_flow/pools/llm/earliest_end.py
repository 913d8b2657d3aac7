"""Finds an instant before which no answer can leave an LLM client, so that it need not be fired at every plan.

Nobody outside a client sees its plans; others see only when answers leave. A decoding sequence ends after a known
number of decode steps, and a step takes at least a known time. So a client misses nothing if it is fired no later
than the resulting bound. A task that arrives before then can only make others later, unless blocks may run out: a
preempted sequence makes the steps of the others shorter. The bound then counts every step as the shortest one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hermes_flow.pools.llm.batching.policy import batching_policies
from hermes_flow.pools.llm.decoding_batch import ADMISSION_BITS
from hermes_flow.pools.outbox import due
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import NEVER, PS_PER_NS
from hermes_flow.routing.unfinished import Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    from hermes_flow.pools.llm.client import LLMClient

# Of more tasks than these, that wait for their prefill, it is not asked which can end first.
_FEW = 16


class ShortestSteps:
    """The least time of the steps of a client, in picoseconds.

    ``any_ps`` is that of any step. A step in which ``n`` or more sequences decode over ``c`` or more computed tokens
    takes at least ``decode_ps[n] + context_ps·c``. With a ``budget``, a prompt is computed as a whole, in one step
    or in several of which the first has as many tokens: ``n`` tokens take at least ``prompt_ps[n]``. Without it, or
    where a prompt is longer than the list, only ``any_ps`` is known of it. They are ``exact`` where no decode step
    without a prompt takes longer.
    """

    __slots__ = ("any_ps", "context_ps", "decode_ps", "exact", "prompt_ps")

    def __init__(self, cost: StepCost, budget: int = 0) -> None:
        mixed = cost.mixed_attention_ps or cost.decode_attention_ps
        width = cost.tokens_per_decode
        tokens, sequences = _least_from(cost.tokens_ps), _least_from(cost.sequences_ps)
        attention = np.minimum(_least_from(cost.decode_attention_ps), _least_from(mixed))
        most = min(len(attention), len(sequences), (len(tokens) - 1) // width + 1)
        decodes = tokens[: most * width : width] + sequences[:most] + attention[:most]
        self.decode_ps: list[int] = decodes.tolist()
        self.any_ps = int(tokens[1] + sequences[1] + min(0, attention[0]))
        self.context_ps = cost.context_ps
        if cost.mixed_attention_ps:
            self.context_ps = min(cost.context_ps, cost.mixed_context_ps)
        self.exact = self.context_ps == cost.context_ps and self.decode_ps == cost.decode_ps[:most]
        self.prompt_ps: list[int] = []
        if budget:
            least = tokens + sequences[1] + min(0, attention[0]) + cost.prefill_launch_ps
            least[budget:] = least[min(budget, len(least) - 1)]
            self.prompt_ps = (least + np.array(cost.first_chunk_ps)).tolist()

    def bound_steps(self, cost: StepCost) -> bool:
        """Return whether all steps take a nanosecond or more, and none less for more prompts or context."""
        terms = (
            self.context_ps,
            cost.prefill_launch_ps,
            cost.prefill_pair_ps,
            cost.prefill_half_length,
            cost.prefill_context_ps,
            cost.prefill_token_ps,
        )
        return self.any_ps >= PS_PER_NS and min(terms) >= 0 and cost.attention_ranks == 1


def _least_from(table: list[int]) -> np.ndarray:
    """Return, for each place of a table, its least entry there and after."""
    return np.minimum.accumulate(np.array(table, dtype=np.int64)[::-1])[::-1]


def shortest_steps(spec: LLMClientSpec) -> ShortestSteps | None:
    """Return the shortest steps of a client that can be fired at bounds alone; None for another one.

    A client that speculates, has times of a recorded run, or sends KV layer by layer is fired at each of its plans.
    """
    if spec.speculation is not None or spec.kv_layers or spec.cost.replayed_ps or spec.cost.drift:
        return None
    steps = ShortestSteps(spec.cost, spec.max_num_batched_tokens if _cut_by_budget_alone(spec) else 0)
    return steps if steps.bound_steps(spec.cost) else None


def _cut_by_budget_alone(spec: LLMClientSpec) -> bool:
    """Return whether all of a prompt is computed, and nothing but the budget of a step cuts it."""
    policy = spec.policy or batching_policies.parse(spec.batching, "batching")
    return (
        not spec.prefix_cache
        and not spec.longest_chunk
        and type(policy).__module__.startswith("hermes_flow.")
    )


class EarliestEnd:
    """The resource that delivers the answers of one client, which makes its plans in between.

    The client is advanced as far as is needed to know what leaves at an instant; an instant at which nothing leaves
    only brings a later bound. So a bound is never given up, and the engine need not re-key it.
    """

    fixed: ClassVar[bool] = True
    __slots__ = (
        "_client",
        "_cut_ns",
        "_done",
        "_in_hand",
        "_next_ns",
        "_place",
        "_spare_blocks",
        "_steps",
        "_unfinished",
        "_unsure",
    )

    def __init__(self, client: LLMClient, steps: ShortestSteps, done: Callable[[int, int], None]) -> None:
        self._client = client
        self._steps = steps
        self._done = done
        self._next_ns = NEVER
        self._cut_ns = NEVER  # before which nothing leaves even if the run in progress is cut; it may be past
        self._unfinished: Unfinished | None = None
        self._place = -1
        self._spare_blocks = client.batch.blocks  # that no known sequence takes until _next_ns
        self._unsure = False  # a task that comes may let others begin earlier than the bound supposes
        self._in_hand = 0  # tasks in hand that anybody waits for, and maybe some that were taken back

    def count(self, unfinished: Unfinished, place: int) -> None:
        """Report each answer that leaves to ``unfinished``, as one of client ``place``."""
        self._unfinished, self._place = unfinished, place

    @property
    def none_awaited(self) -> bool:
        """Whether nobody awaits any of the tasks in hand: then no answer leaves before another one comes."""
        return not self._in_hand

    def submitted(self, task: int, now_ps: int) -> int:
        """Note a task that comes at ``now_ps``; return the instant before which no answer leaves."""
        client, any_ps = self._client, self._steps.any_ps
        tasks = client.tasks
        waited = tasks.waited
        if not waited or waited[task]:
            self._in_hand += 1
        elif not self._in_hand:
            return self._next_ns
        if self._cut_ns < self._next_ns:  # the run is the same until its scheduler sees somebody
            seen_ns = client.arriving[0][0] // PS_PER_NS if client.arriving else now_ps // PS_PER_NS
            self._next_ns = min(self._next_ns, max(self._cut_ns, seen_ns))
        earliest = (now_ps + (tasks.output[task] - tasks.generated[task]) * any_ps) // PS_PER_NS
        if earliest < self._next_ns and (not waited or waited[task]):  # else: nor is it with a closer look
            begin, last = client.arriving[-1]
            if last != task:  # it was in the queue before it was ready
                begin = now_ps
            if not client.run_steps and client.tail_ps > begin:
                begin = client.tail_ps
            earliest = (begin + self._answer_ps(task)) // PS_PER_NS
            if earliest < self._next_ns:
                self._next_ns = earliest
        # What _blocks returns.
        spare = self._spare_blocks - (tasks.prompt[task] + tasks.output[task]) // client.batch.block_size - 2
        self._spare_blocks = spare
        if spare < 0 or self._unsure:  # the task may end a run, or take the blocks that others need
            self._next_ns = min(self._next_ns, (now_ps + any_ps) // PS_PER_NS)
        return self._next_ns

    def withdrawn(self, now_ps: int) -> int:
        """Note that a task is taken back at ``now_ps``: others may end earlier. Return what ``next_ns`` does."""
        self._next_ns = min(self._next_ns, (now_ps + self._steps.any_ps) // PS_PER_NS)
        return self._next_ns

    def next_ns(self) -> int:
        """Return the instant before which no answer leaves; NEVER where there is none."""
        return self._next_ns

    def fire(self, now_ns: int) -> int:
        """Deliver the answers that leave within this nanosecond; return the next instant at which one may leave."""
        client = self._client
        self._next_ns = NEVER
        client.advance_to_end(now_ns)
        ends = client.outbox.ends
        if ends and ends[0][0] < (now_ns + 1) * PS_PER_NS:
            done, unfinished = self._done, self._unfinished
            for task in [ends.popleft()[1]] if len(ends) == 1 else due(ends, now_ns):
                self._in_hand -= 1
                if unfinished is not None:
                    unfinished.end(self._place, now_ns)
                done(task, now_ns)
        bound_ps = self._bound_ps(now_ns * PS_PER_NS)
        if bound_ps < NEVER:
            bound_ns = bound_ps // PS_PER_NS
            if bound_ns <= now_ns:
                bound_ns = now_ns + 1
            if bound_ns < self._next_ns:
                self._next_ns = bound_ns
        return self._next_ns

    def settle(self, now_ns: int) -> None:
        """Bring the client's state up to, but not including, ``now_ns``."""
        self._client.settle(now_ns)

    def _bound_ps(self, now_ps: int) -> int:
        """Return an instant before which no answer leaves that has not been delivered.

        A run of decodes in progress lasts to its end if no task comes; ``submitted`` sees to those that come. So the
        bound is not before its end: the client would be fired each nanosecond where its steps are not the shortest.
        """
        self._cut_ns = NEVER
        client, shortest = self._client, self._steps
        if not self._in_hand:  # what comes next has a bound of its own, whatever else is in hand then
            self._unsure, self._spare_blocks = False, client.batch.blocks
            return NEVER
        batch, ends = client.batch, client.outbox.ends
        decodes, begin, run = batch.decodes, client.tail_ps, client.run_steps
        bound = ends[0][0] if ends else NEVER
        spare = batch.free
        if decodes:
            steps = (batch._ends[0] >> ADMISSION_BITS) - batch.iteration + 1  # what steps_to_end returns
            spare -= decodes * (steps // batch.block_size + 1)
        self._unsure = spare < 0
        if client.arriving or client.waiting or batch.prefilling:
            joining = client.joining(_FEW)
            if run and client.arriving:
                begin = now_ps
            start = max(now_ps, begin)
            if joining is None:
                bound = min(bound, start + shortest.any_ps)
            elif start + shortest.any_ps < bound:
                first = min(map(self._answer_ps, self._waited(joining)), default=NEVER)
                bound = min(bound, start + first)
            spare -= batch.blocks if joining is None else sum(map(self._blocks, joining))
            self._unsure = joining is None or spare < 0
        self._spare_blocks = spare
        if not decodes:
            return bound
        if spare >= 0:
            if run == steps and shortest.exact:  # what is planned is what the sum below gives
                end = client.tail_ps
                return end if end < bound else bound
            start = client.run_start_ps if run else begin
            grown = steps * batch.context + decodes * (steps * (steps - 1) // 2)
            end = start + steps * shortest.decode_ps[decodes] + shortest.context_ps * grown
            if run and end < client.tail_ps:
                self._cut_ns = end // PS_PER_NS
                end = client.tail_ps
                if client.arriving:
                    end = max(self._cut_ns * PS_PER_NS, min(end, client.arriving[0][0]))
            return end if end < bound else bound
        if run and client.arriving:
            return min(bound, client.tail_ps, now_ps + shortest.any_ps)
        return min(bound, max(now_ps, begin) + (steps - run) * shortest.any_ps)

    def _waited(self, joining: list[int]) -> list[int]:
        """Return the tasks whose ends anybody waits for."""
        waited = self._client.tasks.waited
        return [task for task in joining if waited[task]] if waited else joining

    def _answer_ps(self, task: int) -> int:
        """Return the least time from the next plan to the end of a task that does not decode yet."""
        tasks, steps = self._client.tasks, self._steps
        prompt = tasks.prompt[task]
        duration = steps.any_ps
        # Else an earlier step, or another client, has computed some of it.
        if tasks.start_ps[task] < 0 and not tasks.preloaded and prompt < len(steps.prompt_ps):
            duration = steps.prompt_ps[prompt]
        decodes = tasks.output[task] - tasks.generated[task] - 1
        if decodes:
            grown = decodes * prompt + decodes * (decodes - 1) // 2
            duration += decodes * steps.decode_ps[1] + steps.context_ps * grown
        return duration

    def _blocks(self, task: int) -> int:
        """Return no fewer blocks than a task ever holds."""
        tasks = self._client.tasks
        return (tasks.prompt[task] + tasks.output[task]) // self._client.batch.block_size + 2
