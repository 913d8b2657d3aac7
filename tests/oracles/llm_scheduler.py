"""The naive scheduler of chunked, mixed and continuous batching: decides one step after the other.

Nothing is summed incrementally: whatever a rule asks for (free blocks, the tokens a sequence misses) is
counted anew from the sequences and the blocks.

Chunked. Running sequences, in order of admission, take what they miss within the token budget, those whose
last token is in flight excepted; a sequence that lacks blocks preempts the last running one, itself at worst.
With longest_chunk nobody takes more than that in a step.
If nobody was preempted, waiting requests are admitted in the queue's order while budget, seats and blocks
last; the last of them is cut to the budget left.

Mixed. As chunked, but a request is admitted only if all it misses of its present sequence fits the budget left
and all its blocks are taken at once. One that misses more than max_num_batched_tokens fits no step: it is
admitted when no other prompt was in this plan, whatever budget is left, and is the plan's last prompt.

Continuous. Waiting requests first, whole, as in mixed but with the budget to themselves; a plan that admits
anybody holds admissions only. Otherwise all running sequences decode, preempting as in chunked.

In all three the first request in the queue's order that does not fit ends the admissions. Where a decode has
several tokens in a step (cost.tokens_per_decode: drafted ones are verified), it takes as many of the budget, and
joins no step that has fewer left.

Preemption "recompute": the victim loses all it computed. "none": a request is admitted when the blocks for its
prompt and its whole output are free, and takes them all on admission; nobody is ever preempted. "swap": a
victim caught while prefilling is recomputed. Any other keeps its computed tokens; the blocks they fill are
copied to the host in the step of the plan that preempts it (the plan's own step, not the running one), and it
waits in the queue; one whose last token is in flight is not copied, since nothing of it is read again. When
its turn comes and a seat and ceil((computed + 1) / size) blocks are free, it takes them all, joins the end of
the running, and ceil(computed / size) blocks are copied back in the plan's step. It takes part in the decodes
of that very step, for one token of the budget, which must be left; under continuous batching it decodes in the
next step of decodes, which is this one if no prompt was admitted. With prefix cache, the blocks
it left are released as in any preemption, and are looked up when its turn comes: all full blocks of its computed
tokens. Those found are shared and need no copy; as in any admission, those without users count among the free
blocks that must be there. The other full ones become keyed when it takes them. Copies take swap_ps_per_block per
block on top of the step's tokens; a
plan with copies and no tokens is a step of its own, and not an empty plan.

Prefilled. A request whose prompt another client has computed waits with its prompt computed and one token
generated. In every mode it joins as a swapped sequence does that comes back, but nothing is copied; under "none"
it takes the blocks of its whole output too. Once preempted it is like any other. One of whose prompt another client
has computed all but the last token is admitted as a prompt of that token. Either takes import_ps of the step it
joins. A prompt that is complete, and awaited elsewhere, takes export_ps of its step.

Asking. A request whose KV is still on another client waits in the queue like a prefilled one. When its turn comes, a
seat is free and so are the blocks that it would take as it joins, it takes these blocks and leaves the queue without
a seat; no token of the budget is used, and those behind it have their turn. The full blocks of its KV become keyed
when that is here. It then waits before all others, preempted ones included, in the order in which such KV came, and
joins with the blocks that it has as soon as there is a seat, and budget. On the other client a complete prompt that
is awaited gives its seat back as its token is delivered, and its blocks when it is let go.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy

from oracles.llm_prefix_cache import Block, BlockPool
from oracles.llm_queue import WaitingQueue
from oracles.llm_sequence import OraclePolicy, Plan, Sequence

from hermes_flow.program.pools import LLMClientSpec


class StepScheduler:
    """Who waits, who runs (in order of admission), and the blocks they hold."""

    def __init__(self, spec: LLMClientSpec, policy: OraclePolicy) -> None:
        assert policy.preemption in ("recompute", "none", "swap")
        self.spec = spec
        self.policy = policy
        self.pool = BlockPool(spec.kv_blocks)
        self.queue = WaitingQueue(policy)
        self.running: list[Sequence] = []
        self.decode_tokens = spec.cost.tokens_per_decode
        self.most_in_flight = 1 + spec.lookahead
        self.ready: list[Sequence] = []  # their KV has come into their blocks
        self.coming: list[Sequence] = []  # it is on the way
        self.holds = False  # prompts that are awaited elsewhere keep their blocks until they are let go
        self.held: dict[int, Sequence] = {}
        self.images = deepcopy(policy.images)

    @property
    def idle(self) -> bool:
        return not self.queue.members and not self.running and not self.ready and not self.coming

    def plan(self) -> Plan:
        """Decide one step for the present queue and running sequences."""
        plan = Plan()
        if self.spec.batching == "chunked":
            self._plan_chunked(plan)
        elif self.spec.batching == "mixed":
            self._plan_mixed(plan)
        else:
            assert self.spec.batching == "continuous"
            self._plan_continuous(plan)
        plan.used_blocks = self.pool.used
        self._check(plan)
        return plan

    def deliver(self, plan: Plan, now_ps: int) -> None:
        """End a step: its tokens reach their sequences, and those now complete leave."""
        for sequence in plan.emitting:
            if sequence.gone:
                sequence.emitted_ps.append(now_ps)
                continue
            sequence.in_flight -= 1
            sequence.generated += 1
            sequence.emitted_ps.append(now_ps)
            if sequence.generated == 1:
                sequence.first_ps = now_ps
            if sequence in self.running:
                self._remember(sequence, sequence.computed - sequence.in_flight)
            if sequence.generated == sequence.request.output:
                sequence.finish_ps = now_ps
                if self.holds and sequence.request.awaited and sequence in self.running:
                    self.held[sequence.index] = sequence
                else:
                    self._release(sequence)
                # A sequence preempted while its last token was in flight waits in the queue by now.
                (self.running if sequence in self.running else self.queue).remove(sequence)

    def withdraw(self, sequence: Sequence) -> None:
        """Drop a sequence that was taken back."""
        sequence.gone = True
        if sequence in self.running:
            self.running.remove(sequence)
            self._release(sequence)
        elif sequence in self.queue.members:
            self.queue.remove(sequence)

    def let_go(self, index: int) -> bool:
        """Free the blocks of a complete prompt; False if its token is not delivered yet."""
        if index not in self.held:
            return False
        self._release(self.held.pop(index))
        return True

    def arrive_kv(self, sequence: Sequence) -> None:
        """The KV of a sequence that has blocks for it is here."""
        self.coming.remove(sequence)
        self.ready.append(sequence)
        self._remember(sequence, sequence.sent)

    def _in_order(self) -> list[Sequence]:
        return self.ready + self.queue.in_order()

    def _plan_chunked(self, plan: Plan) -> None:
        budget = self.spec.max_num_batched_tokens
        for sequence in list(self.running):
            if budget == 0:
                break
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            taken = chunk if sequence.prefilling else self.decode_tokens
            if self._make_room(sequence, chunk, plan):
                self._schedule(sequence, chunk, plan)
                budget -= taken
        if plan.preempted:
            return
        for sequence in self._in_order():
            if sequence.asking:
                if not self._reserve(sequence, plan):
                    break
                continue
            if sequence.swapped:
                if budget < self.decode_tokens or not self._swap_in(sequence, plan):
                    break
                self._schedule(sequence, 1, plan)
                budget -= self.decode_tokens
                continue
            hits = self._hits(sequence)
            if (
                budget == 0
                or not self._admissible(sequence, hits)
                or not self._images_fit(sequence, hits, plan)
            ):
                break
            self._admit(sequence, hits, plan)
            chunk = min(self._at_most(sequence.length - sequence.computed), budget)
            self._schedule(sequence, chunk, plan)
            budget -= chunk

    def _at_most(self, tokens: int) -> int:
        """Limit what one sequence gets in a step, as vLLM V1 does before it looks at the budget."""
        threshold = self.spec.longest_chunk
        return threshold if 0 < threshold < tokens else tokens

    def _plan_mixed(self, plan: Plan) -> None:
        budget = self.spec.max_num_batched_tokens
        for sequence in list(self.running):
            if budget == 0:
                break
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            if self._make_room(sequence, 1, plan):
                self._schedule(sequence, 1, plan)
                budget -= self.decode_tokens
        if not plan.preempted:
            self._admit_whole_prompts(plan, budget)

    def _plan_continuous(self, plan: Plan) -> None:
        self._admit_whole_prompts(plan, self.spec.max_num_batched_tokens)
        if plan.prefills:
            return
        for sequence in list(self.running):
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            if self._make_room(sequence, 1, plan):
                self._schedule(sequence, 1, plan)

    def _admit_whole_prompts(self, plan: Plan, budget: int) -> None:
        for sequence in self._in_order():
            if sequence.asking:
                if not self._reserve(sequence, plan):
                    break
                continue
            if sequence.swapped:
                decodes_now = self.spec.batching == "mixed"
                if (decodes_now and budget < self.decode_tokens) or not self._swap_in(sequence, plan):
                    break
                if decodes_now:
                    self._schedule(sequence, 1, plan)
                    budget -= self.decode_tokens
                continue
            hits = self._hits(sequence)
            prompt = sequence.length - self._found(sequence, hits)
            # A prompt that fits no step whole runs as the only prompt of one.
            lone = prompt > self.spec.max_num_batched_tokens and not plan.prefills
            if not (prompt <= budget or lone) or not self._admissible(sequence, hits):
                break
            if not self._images_fit(sequence, hits, plan):
                break
            self._admit(sequence, hits, plan)
            self._schedule(sequence, prompt, plan)
            budget -= prompt

    def _hits(self, sequence: Sequence) -> list[Block]:
        """Return the cached blocks that spare the sequence's beginning; its last token is always computed."""
        if not self.policy.prefix_cache or sequence.reserved:
            return []
        full_blocks = (sequence.length - 1) // self.spec.block_size
        return self.pool.find(sequence.block_key(block) for block in range(full_blocks))

    def _admissible(self, sequence: Sequence, hits: list[Block]) -> bool:
        # The rule passes over a request whose token is still in flight. None ever is: the plan that preempts
        # admits nobody, and the token lands before the next plan is made.
        assert sequence.in_flight == 0
        if len(self.running) == self.spec.max_num_seqs:
            return False
        if sequence.reserved:
            return True
        out_of_free_queue = sum(block.users == 0 for block in hits)
        return self._reserved(sequence) - len(hits) + out_of_free_queue <= len(self.pool.free)

    def _reserved(self, sequence: Sequence) -> int:
        """Blocks that must be there before the sequence is admitted."""
        if self.policy.preemption == "none":
            return self._blocks_for(sequence.request.prompt + sequence.request.output)
        return self._blocks_for(sequence.length)

    def _found(self, sequence: Sequence, hits: list[Block]) -> int:
        """Tokens that need no computing: those of the blocks found, or more that another client has sent."""
        return max(len(hits) * self.spec.block_size, 0 if sequence.preemptions else sequence.request.loaded)

    def _images_fit(self, sequence: Sequence, hits: list[Block], plan: Plan) -> bool:
        computed = self._found(sequence, hits)
        return self.images is None or self.images.fit(plan.encoded, sequence.request.images, computed)

    def _admit(self, sequence: Sequence, hits: list[Block], plan: Plan) -> None:
        self.running.append(sequence)
        if sequence.reserved:
            self._leave_ready(sequence)
        else:
            self.queue.remove(sequence)
            self.pool.share(hits)
            sequence.blocks = list(hits)
        sequence.computed = self._found(sequence, hits)
        if self.images is not None:
            encoded = self.images.admit(sequence.request.images, sequence.computed)
            plan.encoded += encoded
            plan.encode_ps += self.images.pass_ps[encoded]
        plan.imported += 1 if sequence.request.loaded and not sequence.preemptions else 0
        if sequence.start_ps < 0:
            sequence.cached_tokens = sequence.computed
        sequence.prefilling = True
        if self.policy.preemption == "none":
            self._hold(sequence, self._reserved(sequence))

    def _make_room(self, sequence: Sequence, chunk: int, plan: Plan) -> bool:
        """Preempt from the tail until ``chunk`` more tokens fit; False if ``sequence`` itself had to go."""
        while self._blocks_for(sequence.computed + chunk) - len(sequence.blocks) > len(self.pool.free):
            assert self.policy.preemption != "none"
            victim = self.running.pop()
            assert victim.index not in plan.tokens, "preempted after being scheduled in the same plan"
            if self.policy.preemption == "swap" and not victim.prefilling and not victim.last_token_in_flight:
                victim.swapped = True
                plan.copied_blocks += self._blocks_for(victim.computed)
            else:
                victim.computed = 0
                victim.prefilling = False
            self._release(victim)
            victim.preemptions += 1
            self.queue.put_back(victim)
            plan.preempted.append(victim.index)
            if victim is sequence:
                return False
        return True

    def _swap_in(self, sequence: Sequence, plan: Plan) -> bool:
        """Let a sequence decode whose KV is on the host or came from elsewhere; False if it does not fit."""
        assert sequence.in_flight == 0
        if sequence.reserved:
            if len(self.running) == self.spec.max_num_seqs:
                return False
            self._leave_ready(sequence)
            self.running.append(sequence)
            sequence.swapped = False
            plan.imported += 1
            return True
        blocks = self._blocks_for(sequence.computed + 1)
        if self.policy.preemption == "none":
            blocks = self._reserved(sequence)
        full_blocks = sequence.computed // self.spec.block_size if self.policy.prefix_cache else 0
        hits = self.pool.find(sequence.block_key(block) for block in range(full_blocks))
        needed = blocks - len(hits) + sum(block.users == 0 for block in hits)
        if len(self.running) == self.spec.max_num_seqs or needed > len(self.pool.free):
            return False
        self.queue.remove(sequence)
        self.running.append(sequence)
        self.pool.share(hits)
        sequence.blocks = list(hits)
        self._hold(sequence, blocks)
        self._remember(sequence, sequence.computed)
        sequence.swapped = False
        if sequence.preemptions:
            plan.copied_blocks += self._blocks_for(sequence.computed) - len(hits)
        else:
            plan.imported += 1
        return True

    def _reserve(self, sequence: Sequence, plan: Plan) -> bool:
        """Take the blocks of a sequence whose KV is on another client; False if it does not fit."""
        blocks = self._blocks_for(sequence.sent + 1)
        if self.policy.preemption == "none":
            blocks = self._reserved(sequence)
        full_blocks = sequence.sent // self.spec.block_size if self.policy.prefix_cache else 0
        hits = self.pool.find(sequence.block_key(block) for block in range(full_blocks))
        needed = blocks - len(hits) + sum(block.users == 0 for block in hits)
        if len(self.running) == self.spec.max_num_seqs or needed > len(self.pool.free):
            return False
        self.queue.remove(sequence)
        self.coming.append(sequence)
        self.pool.share(hits)
        sequence.blocks = list(hits)
        self._hold(sequence, blocks)
        sequence.asking, sequence.reserved = False, True
        plan.granted.append((sequence, len(hits)))
        return True

    def _leave_ready(self, sequence: Sequence) -> None:
        self.ready.remove(sequence)
        sequence.reserved = False

    def _schedule(self, sequence: Sequence, chunk: int, plan: Plan) -> None:
        plan.tokens[sequence.index] = chunk
        if sequence.prefilling:
            plan.prefills.append((chunk, sequence.computed))
        else:
            plan.decode_contexts.append(sequence.computed)
            plan.decoding.append(sequence)
        sequence.computed += chunk
        self._hold(sequence, self._blocks_for(sequence.computed))
        self._remember(sequence, min(sequence.computed, sequence.known))
        if sequence.computed == sequence.length:
            plan.prompts_computed += sequence.prefilling and sequence.request.awaited
            sequence.prefilling = False
            sequence.in_flight += 1
            plan.emitting.append(sequence)

    def _blocks_for(self, tokens: int) -> int:
        full, rest = divmod(tokens, self.spec.block_size)
        return full + (1 if rest else 0)

    def _hold(self, sequence: Sequence, blocks: int) -> None:
        """Take what ``sequence`` misses to have ``blocks`` blocks."""
        sequence.blocks += self.pool.take(max(0, blocks - len(sequence.blocks)))

    def _remember(self, sequence: Sequence, tokens: int) -> None:
        """Let the full blocks of the sequence's first ``tokens`` tokens be found."""
        if not self.policy.prefix_cache:
            return
        for number, block in enumerate(sequence.blocks[: tokens // self.spec.block_size]):
            if block.key is None:
                self.pool.remember(block, sequence.block_key(number))

    def _release(self, sequence: Sequence) -> None:
        self.pool.release(sequence.blocks)
        sequence.blocks = []

    def _check(self, plan: Plan) -> None:
        """Assert what holds after every plan."""
        assert len(self.running) <= self.spec.max_num_seqs
        lone_prompt = self.spec.batching != "chunked" and len(plan.prefills) == 1
        scheduled = sum(chunk for chunk, _ in plan.prefills) + len(plan.decode_contexts) * self.decode_tokens
        assert scheduled <= self.spec.max_num_batched_tokens or lone_prompt
        assert all(chunk >= 1 for chunk in plan.tokens.values())
        for sequence in self.running + self.queue.members:
            assert 0 <= sequence.in_flight <= self.most_in_flight
            assert sequence.generated + sequence.in_flight <= sequence.request.output
        for sequence in self.queue.members:
            assert not sequence.blocks
        for sequence in self.running:
            least = self._blocks_for(sequence.computed)
            just_came = sequence.request.prefilled and sequence.computed == sequence.request.prompt
            if self.policy.preemption == "recompute" and not just_came:
                assert len(sequence.blocks) == least
            elif self.policy.preemption == "none":
                assert len(sequence.blocks) == self._reserved(sequence) >= least
            else:
                assert least <= len(sequence.blocks) <= self._blocks_for(sequence.computed + 1)
        holding = [*self.running, *self.ready, *self.coming, *self.held.values()]
        users = Counter(block for sequence in holding for block in sequence.blocks)
        assert all(block.users == count for block, count in users.items())
        assert all(block.users == 0 for block in self.pool.free)
        assert len(users) + len(self.pool.free) == self.spec.kv_blocks
