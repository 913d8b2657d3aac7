"""What the naive LLM client is told, one sequence with all of its state, and what one step will do."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from oracles.llm_images import NaiveImages
from oracles.llm_prefix_cache import Block

from hermes_flow.program.units import PS_PER_NS


@dataclass
class OracleRequest:
    """One request as the client receives it: ``prompt`` tokens in, ``output`` tokens out, both at least 1.

    ``block_keys`` name the content of the sequence's first full blocks, each with all that precedes it; equal
    keys are equal content. They may go on into the answer, where a later prompt holds it. Blocks beyond them
    hold what no other request has.

    With ``after`` the request arrives ``arrival_ns`` after that one, of a lower number, has finished; clients
    tell so in whole nanoseconds, rounded down.

    With ``prefilled`` another client has computed the prompt and emitted the first token, and all of that KV has
    come here by the arrival: at least one more token is asked for. With ``loaded`` it has computed so many tokens of
    the prompt, fewer than all, and emitted nothing. Where it is not ``awaited`` no other client takes its KV
    over. With ``asks`` that KV is still on the other client at the arrival: the request asks for blocks first.

    One that is ``withdrawn_ns`` after time 0, no earlier than it arrives, is taken back then: the scheduler drops it
    at the next plan. What is planned by then goes on, and its tokens reach nobody.
    """

    arrival_ns: int
    prompt: int
    output: int
    block_keys: tuple[Hashable, ...] = ()
    priority: int = 0
    deadline_ns: int = 0  # from the arrival
    prefilled: bool = False
    loaded: int = 0
    awaited: bool = True
    asks: bool = False
    after: int | None = None
    withdrawn_ns: int | None = None
    adapter: int = -1  # which adapter it asks for; -1 for none
    images: tuple[int, ...] = ()  # with which its prompt begins


@dataclass(frozen=True)
class OraclePolicy:
    """The scheduler's choices beyond the batching policy; the defaults are vLLM's without prefix cache.

    ``age_ns`` is the head start of priority 0 over priority 1 under packing "priority".
    """

    packing: str = "fcfs"
    preemption: str = "recompute"
    swap_ps_per_block: int = 0
    age_ns: int = 0
    prefix_cache: bool = False
    import_ps: int = 0  # to take over what another client has computed of a request
    export_ps: int = 0  # to hand over what is computed of a prompt
    images: NaiveImages | None = field(default=None, repr=False)  # as the cache of a run is at first


PLAIN = OraclePolicy()


@dataclass(eq=False)
class Sequence:
    """One request with all of its state; ``computed`` counts tokens computed or scheduled to be."""

    index: int
    request: OracleRequest
    computed: int = 0
    blocks: list[Block] = field(default_factory=list)
    generated: int = 0  # tokens delivered
    in_flight: int = 0  # tokens that a planned or running step will deliver at its end
    prefilling: bool = False  # computing its prompt, or recomputing after a preemption
    swapped: bool = False  # what it computed lies on the host, or came from another client
    asking: bool = False  # its KV is on another client, and it has no blocks here
    reserved: bool = False  # it has blocks for its KV, and no seat
    preemptions: int = 0
    cached_tokens: int = 0
    gone: bool = False  # taken back, and dropped by the scheduler
    arrival_ns: int = -1
    place: int = -1  # in the order of arrival
    start_ps: int = -1
    first_ps: int = -1
    finish_ps: int = -1
    emitted_ps: list[int] = field(default_factory=list)  # when each token was delivered here

    @property
    def over(self) -> bool:
        return self.gone or self.finish_ps >= 0

    def to_be_dropped(self, now_ps: int) -> bool:
        """Whether it was taken back by ``now_ps`` and is still here."""
        at_ns = self.request.withdrawn_ns
        return at_ns is not None and at_ns * PS_PER_NS <= now_ps and not self.over

    @property
    def length(self) -> int:
        """Tokens of the whole present sequence: the prompt and what was generated, in flight or delivered."""
        return self.request.prompt + self.generated + self.in_flight

    @property
    def known(self) -> int:
        """Tokens of the present sequence whose values are known: those in flight are not."""
        return self.request.prompt + self.generated

    @property
    def sent(self) -> int:
        """Tokens whose KV another client sends."""
        return self.request.prompt if self.request.prefilled else self.request.loaded

    @property
    def last_token_in_flight(self) -> bool:
        return self.generated + self.in_flight == self.request.output

    def block_key(self, block: int) -> Hashable:
        """Name what this sequence has in its block number ``block``."""
        if block < len(self.request.block_keys):
            return self.request.block_keys[block]
        return ("own", self.index, block)


@dataclass
class Plan:
    """What one step will do; ``emitting`` are the sequences to which its end delivers a token."""

    tokens: dict[int, int] = field(default_factory=dict)
    prefills: list[tuple[int, int]] = field(default_factory=list)  # chunk, tokens computed before it
    decode_contexts: list[int] = field(default_factory=list)  # tokens computed before, per decoding sequence
    decoding: list[Sequence] = field(default_factory=list)  # those sequences
    emitting: list[Sequence] = field(default_factory=list)
    preempted: list[int] = field(default_factory=list)
    copied_blocks: int = 0  # to the host and back
    imported: int = 0  # sequences that come computed
    granted: list[tuple[Sequence, int]] = field(
        default_factory=list
    )  # got blocks; so many hold their tokens already
    prompts_computed: int = 0  # whose last token is computed in this step
    used_blocks: int = 0  # after planning
    load_ps: int = 0  # for the adapters of those that are admitted
    encode_ps: int = 0  # for their images, of which so many are encoded
    encoded: int = 0
    adapters: int = 0  # of the sequences that run in the step

    @property
    def empty(self) -> bool:
        """Whether there is nothing to run: no token and no copy."""
        return not self.tokens and not self.copied_blocks
