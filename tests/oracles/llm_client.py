"""The naive reference simulator of one LLM client: plain objects, one step at a time, every rule spelled out.

It exists to be read and believed, and to be compared with the fast engine. Nothing is summed incrementally:
whatever a rule asks for (free blocks, the tokens a sequence misses) is counted anew from the sequences.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hermes_flow.compiler.program import PS_PER_NS, LLMClientSpec


@dataclass
class OracleRequest:
    """One request as the client receives it: ``prompt`` tokens in, ``output`` tokens out, both at least 1."""

    arrival_ns: int
    prompt: int
    output: int


@dataclass
class OracleStep:
    """One forward pass: what its plan scheduled (request → tokens) and whom the plan preempted, in order.

    Requests preempted by a plan that came out empty are listed with the next step.
    """

    start_ps: int
    end_ps: int
    tokens: dict[int, int]
    preempted: list[int]
    used_blocks_after_planning: int


@dataclass
class OracleResult:
    """One entry per request, and every step in order of time.

    ``start_ps`` is the start of the first step that scheduled the request, ``first_ps`` and ``finish_ps`` the
    ends of the steps that emitted its first and its last token.
    """

    start_ps: list[int]
    first_ps: list[int]
    finish_ps: list[int]
    preemptions: list[int]
    steps: list[OracleStep]


@dataclass(eq=False)
class _Sequence:
    """One request with all of its state; ``computed`` counts tokens computed or scheduled to be."""

    index: int
    visible_ps: int
    prompt: int
    output: int
    computed: int = 0
    blocks: int = 0
    generated: int = 0  # tokens delivered
    in_flight: int = 0  # tokens that a planned or running step will deliver at its end
    prefilling: bool = False  # computing its prompt, or recomputing after a preemption
    preemptions: int = 0
    start_ps: int = -1
    first_ps: int = -1
    finish_ps: int = -1

    @property
    def length(self) -> int:
        """Tokens of the whole present sequence: the prompt and what was generated, in flight or delivered."""
        return self.prompt + self.generated + self.in_flight

    @property
    def last_token_in_flight(self) -> bool:
        return self.generated + self.in_flight == self.output


@dataclass
class _Plan:
    """What one step will do; ``emitting`` are the sequences to which its end delivers a token."""

    tokens: dict[int, int] = field(default_factory=dict)
    prefills: list[tuple[int, int]] = field(default_factory=list)  # chunk, tokens computed before it
    decode_contexts: list[int] = field(default_factory=list)  # tokens computed before, per decoding sequence
    emitting: list[_Sequence] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    used_blocks: int = 0


class _Client:
    """The scheduler's state: who is still to arrive, who waits, who runs (in order of admission)."""

    def __init__(self, spec: LLMClientSpec, requests: list[OracleRequest]) -> None:
        self.spec = spec
        self.sequences: list[_Sequence] = []
        for index, request in enumerate(requests):
            assert request.prompt >= 1
            assert request.output >= 1
            assert index == 0 or request.arrival_ns >= requests[index - 1].arrival_ns, "not in arrival order"
            visible_ps = (request.arrival_ns + spec.cost.ingest_ns) * PS_PER_NS
            self.sequences.append(_Sequence(index, visible_ps, request.prompt, request.output))
        self.arriving: list[_Sequence] = list(self.sequences)
        self.queue: list[_Sequence] = []
        self.running: list[_Sequence] = []

    def receive(self, now_ps: int) -> None:
        """Move to the queue what has become visible by now."""
        while self.arriving and self.arriving[0].visible_ps <= now_ps:
            self.queue.append(self.arriving.pop(0))

    def plan(self) -> _Plan:
        """Decide one step for the present queue and running sequences, by the client's batching policy."""
        if self.spec.batching == "chunked":
            plan = self._plan_chunked()
        elif self.spec.batching == "continuous":
            plan = self._plan_continuous()
        else:
            raise ValueError(f"the oracle knows chunked and continuous batching, not {self.spec.batching!r}")
        plan.used_blocks = self._used_blocks()
        self._check(plan)
        return plan

    def deliver(self, plan: _Plan, now_ps: int) -> None:
        """End a step: its tokens reach their sequences, and those now complete leave."""
        for sequence in plan.emitting:
            sequence.in_flight -= 1
            sequence.generated += 1
            if sequence.generated == 1:
                sequence.first_ps = now_ps
            if sequence.generated == sequence.output:
                sequence.finish_ps = now_ps
                sequence.blocks = 0
                # A sequence preempted while its last token was in flight waits in the queue by now.
                (self.running if sequence in self.running else self.queue).remove(sequence)

    def _plan_chunked(self) -> _Plan:
        plan = _Plan()
        budget = self.spec.max_num_batched_tokens
        for sequence in list(self.running):
            if budget == 0:
                break
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            chunk = min(sequence.length - sequence.computed, budget)
            if self._make_room(sequence, chunk, plan):
                self._schedule(sequence, chunk, plan)
                budget -= chunk
        if plan.preempted:
            return plan
        for sequence in list(self.queue):
            if budget == 0 or not self._admissible(sequence):
                break
            self._admit(sequence)
            chunk = min(sequence.length, budget)
            self._schedule(sequence, chunk, plan)
            budget -= chunk
        return plan

    def _plan_continuous(self) -> _Plan:
        plan = _Plan()
        budget = self.spec.max_num_batched_tokens
        for sequence in list(self.queue):
            # The first prompt of a step is never too long: one beyond the whole budget goes alone.
            fits_budget = sequence.length <= budget or not plan.tokens
            if not fits_budget or not self._admissible(sequence):
                break
            self._admit(sequence)
            budget -= sequence.length
            self._schedule(sequence, sequence.length, plan)
        if plan.tokens:
            return plan
        for sequence in list(self.running):
            if sequence not in self.running or sequence.last_token_in_flight:
                continue
            if self._make_room(sequence, 1, plan):
                self._schedule(sequence, 1, plan)
        return plan

    def _admissible(self, sequence: _Sequence) -> bool:
        # The rule passes over a request whose token is still in flight. None ever is: the plan that preempts
        # admits nobody, and the token lands before the next plan is made.
        assert sequence.in_flight == 0
        seat = len(self.running) < self.spec.max_num_seqs
        return seat and self._blocks_for(sequence.length) <= self._free_blocks()

    def _admit(self, sequence: _Sequence) -> None:
        self.queue.remove(sequence)
        self.running.append(sequence)
        sequence.prefilling = True

    def _make_room(self, sequence: _Sequence, chunk: int, plan: _Plan) -> bool:
        """Preempt from the tail until ``chunk`` more tokens fit; False if ``sequence`` itself had to go."""
        while self._blocks_for(sequence.computed + chunk) - sequence.blocks > self._free_blocks():
            victim = self.running.pop()
            assert victim.index not in plan.tokens, "preempted after being scheduled in the same plan"
            victim.computed = 0
            victim.blocks = 0
            victim.prefilling = False
            victim.preemptions += 1
            self.queue.insert(0, victim)
            plan.preempted.append(victim.index)
            if victim is sequence:
                return False
        return True

    def _schedule(self, sequence: _Sequence, chunk: int, plan: _Plan) -> None:
        plan.tokens[sequence.index] = chunk
        if sequence.prefilling:
            plan.prefills.append((chunk, sequence.computed))
        else:
            plan.decode_contexts.append(sequence.computed)
        sequence.computed += chunk
        sequence.blocks = self._blocks_for(sequence.computed)
        if sequence.computed == sequence.length:
            sequence.prefilling = False
            sequence.in_flight += 1
            plan.emitting.append(sequence)

    def _blocks_for(self, tokens: int) -> int:
        full, rest = divmod(tokens, self.spec.block_size)
        return full + (1 if rest else 0)

    def _used_blocks(self) -> int:
        return sum(sequence.blocks for sequence in self.running)

    def _free_blocks(self) -> int:
        return self.spec.kv_blocks - self._used_blocks()

    def _check(self, plan: _Plan) -> None:
        """Assert what holds after every plan."""
        assert plan.used_blocks <= self.spec.kv_blocks
        assert len(self.running) <= self.spec.max_num_seqs
        lone_prompt = self.spec.batching == "continuous" and len(plan.prefills) == len(plan.tokens) == 1
        assert sum(plan.tokens.values()) <= self.spec.max_num_batched_tokens or lone_prompt
        assert all(chunk >= 1 for chunk in plan.tokens.values())
        for sequence in self.sequences:
            assert sequence.blocks == (self._blocks_for(sequence.computed) if sequence in self.running else 0)
            assert 0 <= sequence.in_flight <= 1 + self.spec.lookahead
            assert sequence.generated + sequence.in_flight <= sequence.output


def simulate_llm_client(spec: LLMClientSpec, requests: list[OracleRequest]) -> OracleResult:
    """Run ``requests`` (in arrival order) through one client, alone, until the last one finishes.

    Every request must fit the client's KV blocks by itself. Raises ValueError for a batching policy that the
    oracle does not know.
    """
    client = _Client(spec, requests)
    steps: list[OracleStep] = []
    unlisted: list[int] = []  # requests preempted by a plan that came out empty
    planned: _Plan | None = None  # the next step, where lookahead planned it while the last one began
    now_ps = 0
    while any(sequence.finish_ps < 0 for sequence in client.sequences):
        # No step runs at this instant, and all that ended are delivered.
        client.receive(now_ps)
        plan = planned or client.plan()
        planned = None
        if not plan.tokens:
            assert not client.queue, "a client with work does not idle"
            assert not client.running, "a client with work does not idle"
            now_ps = client.arriving[0].visible_ps
            continue

        decode_context = sum(plan.decode_contexts)
        end_ps = now_ps + spec.cost.step_ps(plan.prefills, len(plan.decode_contexts), decode_context)
        assert end_ps >= now_ps
        steps.append(OracleStep(now_ps, end_ps, plan.tokens, unlisted + plan.preempted, plan.used_blocks))
        unlisted = []
        for index in plan.tokens:
            if client.sequences[index].start_ps < 0:
                client.sequences[index].start_ps = now_ps

        if spec.lookahead == 1:
            planned = client.plan()
            if not planned.tokens:
                unlisted = planned.preempted
                planned = None
        now_ps = end_ps
        client.deliver(plan, now_ps)

    assert [client.arriving, client.queue, client.running, unlisted] == [[], [], [], []]
    return OracleResult(
        start_ps=[sequence.start_ps for sequence in client.sequences],
        first_ps=[sequence.first_ps for sequence in client.sequences],
        finish_ps=[sequence.finish_ps for sequence in client.sequences],
        preemptions=[sequence.preemptions for sequence in client.sequences],
        steps=steps,
    )
