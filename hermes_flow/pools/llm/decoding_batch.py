"""The running sequences of one LLM client as sums, so that a decode step costs O(1), not O(batch).

Every decoding sequence gains one token per decode iteration, so their sum of contexts, their ends and the blocks
they need (``BlockCounts``) all follow from the iteration counter: the sum grows by their number, and a sequence
ends in an iteration known when it joins. Only joining, ending and preemption touch a single sequence.

Sequences are named by their admission number; ``running`` is in order of admission and holds, besides the
decoding ones, the one that is still prefilling and those whose last token is planned but not delivered.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Final

from mypy_extensions import mypyc_attr

from hermes_flow.errors import InternalError
from hermes_flow.pools.llm.adapter_slots import AdapterSlots
from hermes_flow.pools.llm.blocks import BlockCounts, Found
from hermes_flow.pools.llm.encoder_cache import EncoderCache
from hermes_flow.pools.llm.scheduler import Loads
from hermes_flow.pools.llm.tasks import LLMTasks

ADMISSION_BITS: Final = 40  # of an entry of the heap of ends; the last iteration stands above them
ADMISSION_MASK: Final = (1 << ADMISSION_BITS) - 1


@mypyc_attr(allow_interpreted_subclasses=True)
class DecodingBatch(BlockCounts):
    """Seats and running sums of one client, on top of its blocks, for sequences that come and decode.

    ``context`` is the sum of the computed tokens of the sequences that will decode in the next iteration,
    ``backlog`` the tokens still to be computed of waiting and prefilling sequences (one of those whose KV only has
    to come), ``copy_ps`` the time of the copies of the step being planned. Where sequences are swapped, they lengthen
    it by ``swap_ps_per_block`` for each block.
    """

    __slots__ = (
        "_admissions",
        "_decode_planned_ps",
        "_earlier_decode_ps",
        "_ends",
        "_entered",
        "_last_gain",
        "_last_token_ps",
        "abandoned_ps",
        "adapters",
        "backlog",
        "begun",
        "context",
        "copy_ps",
        "entering",
        "export_ps",
        "handing_over",
        "images",
        "import_ps",
        "last_decode_ps",
        "loads",
        "now_ps",
        "prefilling",
        "resume_gaps_ps",
        "resumed",
        "resumed_from_ps",
        "running",
        "swap_ps_per_block",
    )

    def __init__(self, tasks: LLMTasks, blocks: int, block_size: int) -> None:
        super().__init__(tasks, blocks, block_size)
        self.backlog = 0
        self.context = 0
        self.copy_ps = 0
        self.adapters: AdapterSlots | None = None
        self.images: EncoderCache | None = None if tasks.images is None else EncoderCache(tasks.images)
        self.export_ps = 0  # to hand over the KV of a prompt that is computed
        self.import_ps = 0  # to take over that of a sequence that comes computed
        # Task that has ended → admission, while its KV is awaited elsewhere.
        self.handing_over: dict[int, int] = {}
        self.loads: Loads | None = None  # the client, where it loads KV from tiers of memory
        self.swap_ps_per_block = 0
        self.begun: list[int] = []  # tasks admitted for the first time since the last step was committed
        self.entering: set[int] = set()  # tasks that entered and have not decoded here yet
        self._entered: set[int] = set()  # tasks that entered and decoded in the last step for the first time
        self.last_decode_ps = -1
        self._earlier_decode_ps = -1
        self._last_gain = 1  # tokens that each sequence gained in the last step
        self._decode_planned_ps = -1
        self.now_ps = 0  # the planning instant
        self.running: dict[int, int] = {}
        self.prefilling: dict[int, int] = {}  # admission → tokens computed, of sequences still prefilling
        self.resume_gaps_ps: list[int] = []
        self.resumed: dict[int, int] = {}  # task of another client → tokens of its answer in the backlog
        # Task → its last token before, and its next one.
        self.resumed_from_ps: dict[int, tuple[int, int]] = {}
        self.abandoned_ps: list[int] = []  # ends of prefills whose sequence was preempted before it decoded
        self._admissions = 0
        self._ends: list[int] = []  # heap of (last iteration, admission), packed
        self._last_token_ps: dict[int, int] = {}

    def join_client_of(self, other: DecodingBatch) -> None:
        """Become another micro-batch of the same client; both share the results of tasks."""
        self._last_token_ps = other._last_token_ps
        self.reserved = other.reserved
        self.resume_gaps_ps = other.resume_gaps_ps

    def adopt_prefills(self, other: DecodingBatch) -> list[tuple[int, int]]:
        """Take over the sequences of another micro-batch that still prefill; return (their, our) admissions."""
        adopted = []
        for theirs, computed in other.prefilling.items():
            self._admissions = ours = self._admissions + 1
            self.running[ours] = other.running.pop(theirs)
            self.prefilling[ours] = computed
            adopted.append((theirs, ours))
        other.prefilling.clear()
        return adopted

    # Admission and prefill.

    def admit(self, task: int, found: Found, chunk: int, start_ps: int) -> int:
        """Give ``task`` a seat and the blocks of its first ``chunk`` tokens; return its admission number.

        ``found`` is what ``find`` returns for the task now, and ``start_ps`` when the step begins. The chunk
        follows the tokens that are computed already.
        """
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        computed = found[1]
        if self.reserved and task in self.reserved:
            if self.tasks.contexts and task in self.tasks.contexts:
                self._give_back(task, computed + chunk)
            self._use_reserved(admission, task)
        else:
            self._take_first(admission, task, found, chunk)
        self.backlog -= chunk + computed
        tasks = self.tasks
        if self.adapters is not None:
            self._take_adapter(task)
        if self.images is not None:
            self.copy_ps += self.images.take(task, computed, start_ps)
        if tasks.start_ps[task] < 0:
            tasks.start_ps[task] = start_ps
            self.begun.append(task)
            if computed:
                tasks.cached[task] = computed
                if tasks.preloaded and task in tasks.preloaded:
                    del tasks.preloaded[task]  # once preempted, it is gone
                    self.copy_ps += self.import_ps
        elif tasks.preloaded and task in tasks.preloaded:
            del tasks.preloaded[task]  # it came from a client that has failed
            self.copy_ps += self.import_ps
        return admission

    def reclaim(self, task: int) -> bool:
        """Free blocks that were loaded for a waiting request other than ``task``: there are none here."""
        return False

    def take_chunk(self, admission: int, computed: int, chunk: int) -> None:
        """Take the blocks of the next ``chunk`` tokens of a prompt after ``computed`` ones."""
        self.free -= self.blocks_to_continue(computed, chunk)
        self.backlog -= chunk

    def seat_of(self, task: int) -> int:
        """Return the admission number of a task; 0 where it has no seat."""
        for admission, running in self.running.items():
            if running == task:
                return admission
        return 0

    def exporting_ps(self, completed: list[tuple[int, int]]) -> int:
        """Return the time to hand over the KV of complete prompts that another client waits for."""
        leaving = self.tasks.leaving
        return self.export_ps * sum([leaving[task] for _, task in completed]) if leaving else 0

    def enter(self, task: int, start_ps: int) -> None:
        """Give a computed task a seat and blocks; it takes part in the next decode iteration."""
        tasks = self.tasks
        self._admissions = admission = self._admissions + 1
        self.running[admission] = task
        computed = tasks.kept.pop(task)
        found = 0
        if self.reserved and task in self.reserved:
            self._use_reserved(admission, task)
            self._take_early(admission, computed)
        else:
            found = self._take_entering(admission, task, computed)
        if task in tasks.preemptions:
            self.copy_ps += (-(-computed // self.block_size) - found) * self.swap_ps_per_block
        self.backlog -= 1
        if self.adapters is not None:
            self._take_adapter(task)
        if tasks.start_ps[task] < 0:
            tasks.start_ps[task] = start_ps
            self.copy_ps += self.import_ps
        self._start_decoding(admission, task, tasks.generated[task])
        self.entering.add(task)

    def last_token_ps(self, task: int) -> int:
        """When a sequence that enters emitted its last token so far."""
        return self._last_token_ps.get(task, self.tasks.first_ps[task])

    def join(self, admission: int, task: int, end_ps: int) -> bool:
        """Record that a prefill is complete at ``end_ps`` and has emitted a token.

        Returns True where the sequence goes on to decode, False where that token was its last.
        """
        tasks = self.tasks
        generated = tasks.generated[task] + 1
        if generated == 1:
            tasks.first_ps[task] = end_ps
        else:
            before_ps = self._last_token_ps[task]
            self.resumed_from_ps[task] = (before_ps, end_ps)
            self.resume_gaps_ps.append(end_ps - before_ps)
            self._last_token_ps[task] = end_ps
        if generated == tasks.output[task]:
            tasks.last_iteration[task] = self.iteration - 1
            tasks.finish_ps[task] = end_ps
            if self.adapters is not None:
                self.adapters.give_back(tasks.adapter[task])
            return False
        self._start_decoding(admission, task, generated)
        return True

    def join_all(self, completed: list[tuple[int, int]], end_ps: int, ended: list[int]) -> int:
        """Record that the prefills of (admission, task) are complete at ``end_ps``; return how many go on to decode.

        The admissions of the others, which have their last token, are added to ``ended``.
        """
        joined = 0
        for admission, task in completed:
            if self.join(admission, task, end_ps):
                joined += 1
            else:
                ended.append(admission)
        return joined

    def planned_answer(self, admission: int) -> int:
        """Return the tokens of its answer that a decoding sequence has by all steps that are planned."""
        tasks, task = self.tasks, self.running[admission]
        return tasks.output[task] - max(tasks.last_iteration[task] - self.iteration + 1, 0)

    def has_just_entered(self, task: int) -> bool:
        """Return whether a computed sequence entered with the decode step that was planned last."""
        return task in self._entered

    def resume(self, task: int, last_ps: int) -> None:
        """Let a task come that goes on from tokens which another client has given it, the last at ``last_ps``.

        As it comes, its prompt is counted in the backlog; these tokens are counted here, unless its KV is kept.
        """
        self._last_token_ps[task] = last_ps
        self.resumed[task] = tokens = 0 if task in self.tasks.kept else self.tasks.generated[task]
        self.backlog += tokens

    def _take_adapter(self, task: int) -> None:
        """Take note of the adapter of a sequence that is admitted; loading it lengthens the step."""
        assert self.adapters is not None
        duration = self.adapters.take(self.tasks.adapter[task])
        if duration:
            self.copy_ps += duration
            loads = self.tasks.adapter_load_ps
            loads[task] = loads.get(task, 0) + duration

    # Decoding.

    def decodes_next(self, admission: int) -> bool:
        """Return whether a sequence that has its prompt computed takes part in the next iteration."""
        return self.tasks.last_iteration[self.running[admission]] >= self.iteration

    def steps_to_end(self) -> int:
        """Number of iterations up to and including the next one in which a sequence may end."""
        return (self._ends[0] >> ADMISSION_BITS) - self.iteration + 1

    def decode_again(self, end_ps: int) -> list[int]:
        """Let every decoding sequence gain a further token in the step that was decided last."""
        earlier, gained, entered = self._earlier_decode_ps, self._last_gain, self._entered
        ended = self.decode(1, end_ps)
        self._earlier_decode_ps, self._last_gain, self._entered = earlier, gained + 1, entered
        return ended

    def decode(self, steps: int, end_ps: int) -> list[int]:
        """Let every decoding sequence gain ``steps`` tokens; return the admissions that end with the last one.

        Takes the blocks that are not taken yet. ``end_ps`` is when the last of these steps ends.
        """
        taken, iteration = self._taken, self.iteration
        if steps > taken:
            self._take_run(iteration + taken, steps - taken, 0 if taken else len(self._early))
        self._taken = 0
        if self._early:
            self._early.clear()
        if self.entering or self._entered:
            self._entered = set(self.entering) if steps == 1 else set()
            self.entering.clear()
        self.iteration = iteration = iteration + steps
        self.context += self.decodes * steps
        self._decode_planned_ps = self.now_ps if steps == 1 else -1
        self._earlier_decode_ps = self.last_decode_ps
        self._last_gain = 1
        self.last_decode_ps = end_ps
        used = self.blocks - self.free
        if used > self.peak:
            self.peak = used
        ends = self._ends
        ended: list[int] = []
        over = iteration << ADMISSION_BITS
        while ends and ends[0] < over:
            admission = heappop(ends) & ADMISSION_MASK
            task = self.running.get(admission)
            if task is not None:  # else: preempted since
                tasks = self.tasks
                total = tasks.prompt[task] + tasks.output[task]
                self._leave(admission, iteration - 1, total)
                self.context -= total - 1
                tasks.finish_ps[task] = end_ps
                if self.adapters is not None:
                    self.adapters.give_back(tasks.adapter[task])
                ended.append(admission)
        return ended

    def _start_decoding(self, admission: int, task: int, generated: int) -> None:
        tasks = self.tasks
        prompt = tasks.prompt[task]
        output = tasks.output[task]
        last = self.iteration + output - generated - 1
        if last < self.iteration:
            raise InternalError(f"a sequence was made to decode that has all its tokens ({output:,}) already")
        tasks.last_iteration[task] = last
        self._count_boundary((last + 2 - prompt - output) % self.block_size, 1, admission)
        self.decodes += 1
        self.context += prompt + generated - 1
        heappush(self._ends, last << ADMISSION_BITS | admission)

    def _leave(self, admission: int, last: int, total: int) -> None:
        self.decodes -= 1
        self._count_boundary((last + 2 - total) % self.block_size, -1, admission)
