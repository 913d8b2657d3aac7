"""Names the content of prompts and answers block by block, so that a prefix cache can find it.

A prompt begins with what the workload says its request shares with others, or with the prompt (and answer) of an
earlier op of the same request: another branch, a turn before. The rest is its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hermes_flow.pools.llm.lone_chains import LoneChains, OwnConversations, retrieved
from hermes_flow.pools.llm.prefix_cache import Run
from hermes_flow.pools.llm.trace_chains import TraceChains
from hermes_flow.program.kv_store import KVLookup
from hermes_flow.program.ops import Op
from hermes_flow.program.prefixes import Prefixes, SessionPrefixes
from hermes_flow.program.program import Program
from hermes_flow.program.work import EarlierPrompt

_MOST_CONVERSATIONS = 1 << 16


@dataclass(frozen=True, slots=True)
class Opening:
    """The beginning of a prompt: ``tokens`` that the workload's prefixes name, or blocks ``shared`` with another one.

    From block ``begin`` on comes what is the request's own.
    """

    tokens: int
    shared: Sequence[Run]
    begin: int


@dataclass(frozen=True, slots=True)
class Conversation:
    """Ops of a request that continue each other's prompt and answer; blocks are named after the ``first``.

    It has the ``opening`` of its first prompt, or begins with the blocks of conversations that it parted from.
    """

    first: Hashable
    opening: Opening


class PoolContent:
    """What the prompts and answers of a pool's tasks hold; the pool numbers its tasks op by op.

    A block is named by the workload's prefixes, or by the request and the op that its content comes from. Where one
    op goes on from the prompt and answer of another, as turns of a conversation do, both have the name of the first.
    """

    __slots__ = (
        "_chains",
        "_conversations",
        "_count",
        "_extended",
        "_extenders",
        "_extends",
        "_input",
        "_lengths",
        "_numbers",
        "_ops",
        "_output",
        "_places",
        "_prefixes",
        "_read",
    )

    def __init__(self, program: Program, numbers: list[int]) -> None:
        self._ops = program.ops
        self._places = numbers
        # What a decode on a pool of its own holds is its prefill's prompt, and its own answer.
        decodes = {op.kv.source: number for number, op in enumerate(program.ops) if op.kv is not None}
        self._numbers = numbers = [
            number if (edge := program.ops[number].kv) is None else edge.source for number in numbers
        ]
        self._count = len(program.requests)
        self._prefixes = program.requests.prefixes
        self._chains: dict[int, TraceChains] = {}  # by block size
        self._extends = {
            number: op.llm.extends for number, op in enumerate(program.ops) if op.llm and op.llm.extends
        }
        self._extended = _extended_by(self._extends, numbers)
        self._extenders: dict[int, list[int]] = {}  # op → those that may begin with its prompt and answer
        for number in sorted(self._extended.union(numbers)):
            extends = self._extends.get(number)
            for before in extends.sources if extends is not None and extends.answer else ():
                self._extenders.setdefault(before, []).append(number)
        self._lengths = {
            number: _lengths(program.ops[number], program.ops[decodes.get(number, number)])
            for number in self._extended
        }
        # The last one that each request was asked about, by block size, with the op that was.
        self._conversations: dict[tuple[int, int], tuple[int, Conversation]] = {}
        requests = program.requests
        prefixes = requests.prefixes
        if isinstance(prefixes, Prefixes):
            named = prefixes.answers
        else:
            named = prefixes is not None and requests.previous is not None
        self._read = _read_answers(program) if named else {}
        self._input, self._output = requests.input_tokens, requests.output_tokens

    def goes_on(self) -> bytearray:
        """Return by task 1 where a later prompt of its request begins with its prompt and answer, for certain."""
        found = np.zeros((len(self._numbers), self._count), dtype=np.bool_)
        for place, number in enumerate(self._numbers):
            for later in self._extenders.get(number, ()):
                op = self._ops[later]
                if op.decided is not None:
                    continue
                begins = np.ones(self._count, dtype=np.bool_) if op.taken is None else op.taken.copy()
                for source in self._extends[later].sources:
                    taken = np.array(self._lengths[source][0]) > 0
                    if source == number:
                        found[place] |= begins & taken
                        break
                    begins &= ~taken
        return bytearray(found.astype(np.uint8).tobytes())

    def lone_chains(self, prompt: Sequence[int]) -> LoneChains | None:
        """Return the chains of the tasks with these prompts; None where requests share prefixes with each other."""
        if self._prefixes is not None:
            return None
        own = OwnConversations(self._ops, self._count, self._extends, self._extenders, self._lengths)
        return own.chains(self._numbers, prompt)

    def prompt_keys(self, task: int, block_size: int, prompt: int) -> Sequence[Hashable]:
        """Return a key for each of the prompt's first full blocks that other prompts may contain."""
        request, tokens, others = self._content(task, block_size, prompt)
        keys: Sequence[Hashable] = ()
        if self._prefixes is not None and tokens:
            keys = self._prefixes.block_keys(request, block_size, tokens)
        if not others:
            return keys
        return [*keys, *((chain, block) for chain, first, last in others for block in range(first, last))]

    def prompt_runs(self, task: int, block_size: int, prompt: int) -> Sequence[Run]:
        """Return the same blocks as runs of chains."""
        request, tokens, others = self._content(task, block_size, prompt)
        runs: list[Run] = []
        if self._prefixes is not None and tokens:
            runs = self._prefix_runs(self._prefixes, request, block_size, tokens)
        runs += [run for run in others if run[1] < run[2]]
        return runs

    def answer_runs(self, task: int, block_size: int, prompt: int, output: int) -> Sequence[Run]:
        """Return the full blocks after the prompt's up to the answer's end, if a later prompt contains them.

        None for tasks that do not write an answer, or write one that is not in the next turn's prompt.
        """
        place, request = divmod(task, self._count)
        number = self._numbers[place]
        first, last = prompt // block_size, (prompt + output) // block_size
        if number in self._extended:
            known = self._conversation(number, request, block_size)
            return [(known.first, first, last)] if first < last else ()
        read = self._read.get(self._places[place])
        if read is None or not read[request]:
            return ()
        if isinstance(self._prefixes, Prefixes):
            return self._trace_answer_runs(self._prefixes, request, block_size, prompt, output)
        assert self._prefixes is not None
        last = self._prefixes.answer_blocks(request, block_size, prompt, output)
        return self._prefixes.runs(request, block_size, first, last) if last else ()

    def _trace_answer_runs(
        self, prefixes: Prefixes, request: int, size: int, prompt: int, output: int
    ) -> Sequence[Run]:
        """Return the blocks of an answer that the trace names, if prompt and answer are those of the trace."""
        if (prompt, output) != self._sizes(request):
            return ()
        skipped = min(prompt // size, prefixes.full_blocks(request, size, prompt))
        if skipped < prompt // size:
            return ()
        runs: list[Run] = []
        for chain, first, last in self._prefix_runs(prefixes, request, size, prompt + output):
            begin = first + min(skipped, last - first)
            skipped -= begin - first
            if begin < last:
                runs.append((chain, begin, last))
        return runs

    def _sizes(self, request: int) -> tuple[int, int]:
        return int(self._input[request]), int(self._output[request])

    def _content(self, task: int, size: int, prompt: int) -> tuple[int, int, Sequence[Run]]:
        """Return the request, how many tokens of the prompt its prefixes name, and the blocks after those, in order.

        Blocks that nobody else asks for are left out.
        """
        place, request = divmod(task, self._count)
        number = self._numbers[place]
        op = self._ops[number]
        end = prompt // size
        if number not in self._extended:
            before = self._begins_with(number, request)
            if before is None:
                if op.generate is None:  # what a guard reads has a template around it and is not looked up
                    return request, 0, ()
                if op.context is None:
                    return request, prompt, ()
                opening = self._opening(op, request, prompt, size)
                return request, opening.tokens, _up_to(opening, end)
            end = min(end, self._known(before, request, self._extends[number].answer) // size)
            number = before
        known = self._conversation(number, request, size)
        opening = known.opening
        own = (known.first, opening.begin, end)
        return request, min(opening.tokens, end * size), (*_up_to(opening, end), own)

    def _opening(self, op: Op, request: int, prompt: int, size: int) -> Opening:
        """Return what a prompt of so many tokens begins with that begins with no other prompt."""
        if op.context is not None:
            retrieval = self._ops[op.context.source]
            lookup = retrieval.work
            assert isinstance(lookup, KVLookup)
            if lookup.added and (retrieval.taken is None or retrieval.taken[request]):
                if lookup.key is None:
                    return Opening(0, (), 0)
                blocks = int(lookup.tokens[request]) // size
                chain = (retrieved(len(self._ops), op.context.source), int(lookup.key[request]))
                return Opening(0, ((chain, 0, blocks),), blocks)
        named = 0 if self._prefixes is None else self._prefixes.full_blocks(request, size, prompt)
        return Opening(prompt, (), named)

    def _conversation(self, number: int, request: int, size: int) -> Conversation:
        """Return the conversation that an op is part of, whose prompt others begin with."""
        seen = self._conversations.get((request, size))
        part = number
        while seen is None or seen[0] != part:
            op = self._ops[part]
            before = self._begins_with(part, request)
            if before is None:
                prompt = 0 if op.llm is None else int(op.llm.prompt[request])
                known = Conversation((part, request), self._opening(op, request, prompt, size))
                break
            if not self._continues(part, before, request):
                begin = self._known(before, request, self._extends[part].answer) // size
                other = self._conversation(before, request, size)
                shared = _up_to(other.opening, begin)
                own = (other.first, other.opening.begin, begin)
                opening = Opening(min(other.opening.tokens, begin * size), (*shared, own), begin)
                known = Conversation((part, request), opening)
                break
            part = before
        else:
            known = seen[1]
        if len(self._conversations) > _MOST_CONVERSATIONS:
            self._conversations.clear()
        self._conversations[request, size] = (number, known)
        return known

    def _known(self, number: int, request: int, with_answer: bool) -> int:
        """Return the tokens of an op's prompt, and of its answer too."""
        prompt, output = self._lengths[number]
        return prompt[request] + output[request] if with_answer else prompt[request]

    def _continues(self, number: int, before: int, request: int) -> bool:
        """Whether an op is the first that goes on from prompt and answer of the one it begins with.

        Further ones part from it there, and their blocks have names of their own.
        """
        for other in self._extenders.get(before, ()):
            if other == number:
                return True
            op = self._ops[other]
            if (op.taken is None or op.taken[request]) and self._begins_with(other, request) == before:
                return False
        return False

    def _prefix_runs(
        self, prefixes: Prefixes | SessionPrefixes, request: int, size: int, tokens: int
    ) -> list[Run]:
        if isinstance(prefixes, SessionPrefixes):
            return [*prefixes.runs(request, size, 0, prefixes.full_blocks(request, size, tokens))]
        chains = self._chains.get(size)
        if chains is None:
            chains = self._chains[size] = TraceChains(prefixes, size)
        return chains.runs(request, tokens)

    def _begins_with(self, number: int, request: int) -> int | None:
        """Return the op whose prompt an op's prompt begins with: the first of those named that is taken."""
        extends = self._extends.get(number)
        for source in () if extends is None else extends.sources:
            if self._lengths[source][0][request]:
                return source
        return None


def _up_to(opening: Opening, end: int) -> list[Run]:
    """Return the blocks that an opening shares, up to block ``end``."""
    return [(chain, first, min(last, end)) for chain, first, last in opening.shared]


def _extended_by(extends: Mapping[int, EarlierPrompt], numbers: Sequence[int]) -> set[int]:
    """Return the ops that the prompts of ``numbers`` begin with, and those that these begin with in turn."""
    found: set[int] = set()
    left = list(numbers)
    while left:
        own = extends.get(left.pop())
        new = set(() if own is None else own.sources) - found
        found |= new
        left += new
    return found


def _read_answers(program: Program) -> dict[int, list[bool]]:
    """Return, by op that writes answers, for which requests the user reads its answer: no later one is taken."""
    read = {}
    later = np.zeros(len(program.requests), dtype=np.bool_)
    for number in reversed(program.answers):
        taken = program.ops[number].taken
        read[number] = (~later if taken is None else taken & ~later).tolist()
        if program.ops[number].decided is not None:
            continue  # no other outcome's answer comes after it
        later = np.ones_like(later) if taken is None else later | taken
    return read


def _lengths(op: Op, writes: Op) -> tuple[list[int], list[int]]:
    """Return an op's prompts, 0 for requests that do not take it, and the answers that ``writes`` goes on to."""
    assert op.llm is not None
    assert writes.llm is not None
    prompt, output = op.llm.prompt, op.llm.output
    if writes is not op:  # a request that skips the decode has its prefill's token for an answer
        output = (
            writes.llm.output if writes.taken is None else np.where(writes.taken, writes.llm.output, output)
        )
    if op.taken is None:
        return prompt.tolist(), output.tolist()
    return (prompt * op.taken).tolist(), (output * op.taken).tolist()
