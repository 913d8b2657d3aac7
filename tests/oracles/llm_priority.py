"""The naive scheduler of vLLM's policy ``priority``, on top of that of chunked batching.

Each request has a class (0 the most urgent) and an arrival. The queue is in order of (class, arrival, number), for
requests that were thrown out too.

A step first goes through the running sequences by place, the first at place 0. The one at the present place takes
what it misses within the token budget, unless its last token is in flight; then the next place has its turn, until
the budget is gone. If it lacks blocks, the running sequence with the highest (class, arrival) is thrown out, the
first of equals, and this again until the blocks are there. Those behind a sequence that is thrown out move up by one
place. If it had its tokens of this step already, they go back to the budget and the present place moves up with
them; if it had none and stood before the present place (its last token is in flight), the present place stays what
it is, and so passes over a sequence. A sequence that throws itself out ends the pass.

Then, if nobody was thrown out, waiting requests are admitted as in chunked batching. A plan that comes out empty and
has thrown somebody out is made again at once, if no step runs.
"""

from __future__ import annotations

from oracles.llm_scheduler import StepScheduler
from oracles.llm_sequence import Plan, Sequence


class PriorityScheduler(StepScheduler):
    """Chunked batching in which urgent sequences go first and others make room for them."""

    def _plan_chunked(self, plan: Plan) -> None:
        budget = self._go_through(plan)
        if plan.preempted:
            return
        for sequence in self._in_order():
            hits = self._hits(sequence)
            if budget == 0 or not self._admissible(sequence, hits):
                return
            self._admit(sequence, hits, plan)
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            self._schedule(sequence, chunk, plan)
            budget -= chunk

    def _go_through(self, plan: Plan) -> int:
        budget, place = self.spec.max_num_batched_tokens, 0
        while budget and place < len(self.running):
            sequence = self.running[place]
            if sequence.last_token_in_flight:
                place += 1
                continue
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            while self._blocks_for(sequence.computed + chunk) - len(sequence.blocks) > len(self.pool.free):
                highest = max((each.request.priority, each.arrival_ns) for each in self.running)
                victim = next(
                    each for each in self.running if (each.request.priority, each.arrival_ns) == highest
                )
                self.running.remove(victim)
                if victim.index in plan.tokens:
                    budget += plan.tokens[victim.index]
                    place -= 1
                    self._take_back(victim, plan)
                victim.computed = 0
                victim.prefilling = False
                self._release(victim)
                victim.preemptions += 1
                self.queue.put_back(victim)
                plan.preempted.append(victim.index)
                if victim is sequence:
                    return budget
            self._schedule(sequence, chunk, plan)
            budget -= chunk
            place += 1
        return budget

    def _take_back(self, victim: Sequence, plan: Plan) -> None:
        """Undo what the plan had scheduled of a sequence; blocks that can be found by it stay so."""
        tokens = plan.tokens.pop(victim.index)
        before = victim.computed - tokens
        if victim in plan.decoding:
            place = plan.decoding.index(victim)
            del plan.decoding[place], plan.decode_contexts[place]
        else:
            plan.prefills.remove((tokens, before))
        if victim in plan.emitting:
            plan.emitting.remove(victim)
            victim.in_flight -= 1
