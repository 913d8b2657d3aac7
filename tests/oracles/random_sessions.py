"""Small random sessions on one LLM client under pressure, as the naive client sees them and as a Program.

Every token has a name, and a block is what its tokens and all before them are: which blocks two requests share
follows from nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace

import numpy as np
from oracles.llm_client import OraclePolicy, OracleRequest
from oracles.random_systems import RandomSystem, random_system, reaching

from hermes_flow.pools.llm.packing import packing_orders
from hermes_flow.program.ops import Op, ServedStage
from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.program import Program, SLOBounds
from hermes_flow.program.requests import Requests
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.program.work import Generate
from hermes_flow.routing.round_robin import RoundRobin

Between = Callable[[int, int], int]


@dataclass(frozen=True)
class Turn:
    """One turn of a session; ``wait_ns`` from time 0 for the first, else from the answer before it."""

    session: int
    number: int
    system_prompt: int
    system_tokens: int
    wait_ns: int
    prompt: int  # all of it, earlier turns included
    output: int

    def block_keys(self, block_size: int) -> tuple[Hashable, ...]:
        """Return the content of each full block of prompt and answer, with all that precedes it."""
        tokens = [
            ("system", self.system_prompt, place) if place < self.system_tokens else (self.session, place)
            for place in range(self.prompt + self.output)
        ]
        ends = range(block_size, len(tokens) + 1, block_size)
        return tuple(tuple(tokens[:end]) for end in ends)


@dataclass(frozen=True)
class RandomSessions:
    """A client and its sessions; turns by session's beginning, then in order."""

    spec: LLMClientSpec
    policy: OraclePolicy
    turns: list[Turn]

    def requests(self) -> list[OracleRequest]:
        """Return the turns as the naive client sees them."""
        return [
            OracleRequest(
                turn.wait_ns,
                turn.prompt,
                turn.output,
                turn.block_keys(self.spec.block_size),
                after=number - 1 if turn.number else None,
            )
            for number, turn in enumerate(self.turns)
        ]

    def program(self) -> Program:
        """Return the turns as a Program on one pool."""
        prompt, output, session, system_prompt, system_tokens = (
            np.array([getattr(turn, name) for turn in self.turns])
            for name in ("prompt", "output", "session", "system_prompt", "system_tokens")
        )
        first = np.array([turn.number == 0 for turn in self.turns])
        wait = np.array([turn.wait_ns for turn in self.turns])
        begins = wait[np.maximum.accumulate(np.where(first, np.arange(len(wait)), 0))]
        packing = None
        if self.policy.packing != "fcfs":
            packing = packing_orders.parse({"order": self.policy.packing}, "packing")
        client = replace(self.spec, packing=packing, prefix_cache=self.policy.prefix_cache)
        generate = Op(
            name="generate",
            serves=(ServedStage("prefill", "prefill"), ServedStage("decode", "decode")),
            pool=0,
            after=(),
            work=Generate(prompt, output),
        )
        return Program(
            name="random sessions",
            pipeline="llm",
            cluster="one client",
            pools=(Pool(name="llm", hardware="any", count=1, routing=RoundRobin(), client=client),),
            ops=(generate,),
            requests=Requests(
                begins,
                prompt,
                output,
                session=session,
                prefixes=SessionPrefixes(session, system_prompt, system_tokens, prompt, output),
                think_ns=np.where(first, 0, wait),
                previous=np.where(first, -1, np.arange(len(wait)) - 1),
            ),
            slo=SLOBounds("none"),
        )


def random_sessions(rng: random.Random, policy: OraclePolicy, batching: str | None = None) -> RandomSessions:
    """Draw one to ten sessions of one to six turns, on a client with few blocks or with many."""
    system: RandomSystem = random_system(rng, batching, policy=policy)
    # Answers are told in whole ns, so that within one there are no two steps.
    while min(system.spec.cost.tokens_ps[1:]) < PS_PER_NS:
        system = random_system(rng, batching, policy=policy)
    between = rng.randint
    block_size = system.spec.block_size
    unit_ns = 10 ** between(0, 3)
    system_tokens = [between(0, 3) * block_size + between(0, 2) for _ in range(between(1, 3))]
    longest_new, longest_output = between(1, 12), between(1, 12)
    longest_think = (0, 3, 40, 300)[between(0, 3)]
    turns: list[Turn] = []
    begin = 0
    for session in range(between(1, 10)):
        begin += between(0, 1) * between(0, 60)
        which = between(0, len(system_tokens) - 1)
        said = system_tokens[which]
        for number in range(between(1, 6)):
            wait = between(0, longest_think) if number else begin
            prompt, output = said + between(1, longest_new), between(1, longest_output)
            turns.append(Turn(session, number, which, system_tokens[which], wait * unit_ns, prompt, output))
            said = prompt + output
    longest = max(turn.prompt + turn.output for turn in turns)
    blocks = -(-longest // block_size) + (0, between(0, 6), 400)[between(0, 2)]
    max_tokens = system.spec.max_num_batched_tokens + longest
    spec = replace(system.spec, kv_blocks=blocks, cost=_longer(system.spec, max_tokens))
    return RandomSessions(spec, policy, turns)


def _longer(spec: LLMClientSpec, max_tokens: int) -> StepCost:
    """Return the step cost with a table of tokens that reaches ``max_tokens``."""
    table = spec.cost.tokens_ps
    slope = table[-1] - table[-2]
    further = [table[-1] + slope * step for step in range(1, max_tokens + spec.max_num_seqs + 2 - len(table))]
    return reaching(spec.cost, table + further)
