"""TensorRT-LLM's scheduling by its rules in words, step by step and block by block, without any sums kept.

Every decision looks at all requests and counts all blocks again. Times are whole nanoseconds.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(eq=False)
class Request:
    """One request; ``names`` are those of the whole blocks of its prompt and answer ([] without block reuse)."""

    arrival: int
    prompt: int
    output: int
    limit: int
    names: list[int]
    written: int = 0
    computed: int = 0
    blocks: list[int | None] = field(default_factory=list)  # a name, or None for a block without
    begun: bool = False
    generating: bool = False
    done: bool = False
    pauses: int = 0
    coming: bool = False  # a step that runs gives it a token
    incomplete: bool = False  # its prompt is not known to be complete
    first: int = -1
    finish: int = -1
    found: int = -1
    withdrawn: int | None = None  # when it is taken back
    told: bool = False  # the scheduler knows that it is

    @property
    def length(self) -> int:
        return self.prompt + self.written


@dataclass
class Settings:
    """``unit`` None: prompts are not cut. A step takes ``fixed`` + ``each`` a token + ``past`` a computed one.

    Prompts beside decodes wait while the step has fewer than ``wait_share`` of the budget, for ``wait_steps`` steps;
    before every decision the engine waits for requests for ``wait`` ns.
    """

    blocks: int
    size: int
    seats: int
    budget: int
    capacity: str
    chunking: str
    unit: int | None
    overlap: bool
    fixed: int
    each: int
    past: int
    wait_steps: int = 0
    wait_share: float = 0.0
    wait: int = 0


@dataclass
class Planned:
    """A step: (request, tokens, context, whether the prompt is complete), decodes with their pauses, its end."""

    prompts: list[tuple[Request, int, int, bool]]
    decodes: list[tuple[Request, int]]
    context: int
    end: int = 0


class Oracle:
    """One client."""

    def __init__(self, settings: Settings, requests: list[Request]) -> None:
        self.settings = settings
        self.requests = sorted(requests, key=lambda one: one.arrival)
        self.later = list(self.requests)
        self.queue: list[Request] = []
        self.active: list[Request] = []
        self.unheld: list[int] = []  # names of blocks that nobody holds, the first to go first
        self.steps: list[tuple[int, int, int]] = []  # decodes, their computed tokens, prompt tokens
        self.waited = 0

    def run(self) -> None:
        """Serve all requests."""
        now, busy_until = 0, 0
        before: Planned | None = None
        cancelled: list[Request] = []  # until a result comes
        asleep = True
        while True:
            if asleep:
                if not self.later:
                    return
                now, asleep = max(self.later[0].arrival, busy_until), False
            now = self.end_of_wait(now)
            while self.later and self.later[0].arrival <= now:
                self.queue.append(self.later.pop(0))
            cancelled += [one for one in self.requests if self.is_cancelled(one, now)]
            step = self.decide()
            if before is not None:
                before.end = busy_until = max(before.end, now)
            if step is not None:
                start = now if before is None else before.end
                tokens = len(step.decodes) + sum(tokens for _, tokens, _, _ in step.prompts)
                past = step.context + sum(context for _, _, context, _ in step.prompts)
                step.end = busy_until = (
                    start + self.settings.fixed + self.settings.each * tokens + self.settings.past * past
                )
                self.steps.append((len(step.decodes), step.context, tokens - len(step.decodes)))
            ended = before if self.settings.overlap else step
            if self.settings.overlap:
                before = step
            if ended is not None:
                now = ended.end
                self.deliver(ended)
                for request in sorted(cancelled, key=lambda one: one.withdrawn or 0):
                    if not request.done:
                        self.end(request, now)
                cancelled = []
            elif step is None:
                asleep = True
            if before is not None:
                for request, _, _, _ in before.prompts:
                    request.coming = True
                for request, _ in before.decodes:
                    request.coming = True

    def end_of_wait(self, now: int) -> int:
        """Return when the decision that is due is made: after the wait, or with as many messages as seats."""
        wait, seats = self.settings.wait, self.settings.seats
        if not wait:
            return now
        if not self.active and not self.queue:  # it sleeps until the first request
            now = max([now, *(one.arrival for one in self.later[:1])])
        messages = [one.arrival for one in self.later]
        messages += [
            one.withdrawn
            for one in self.requests
            if one.withdrawn is not None and not one.told and not 0 <= one.finish <= one.withdrawn
        ]
        messages.sort()
        enough = messages[seats - 1] if len(messages) >= seats else now + wait
        return max(now, min(now + wait, enough))

    # Memory

    def free(self) -> int:
        named = {name for one in self.active for name in one.blocks if name is not None}
        nameless = sum(name is None for one in self.active for name in one.blocks)
        return self.settings.blocks - len(named) - nameless

    def known(self, name: int) -> bool:
        return name in self.unheld or any(name in one.blocks for one in self.active)

    def found(self, request: Request) -> int:
        count = 0
        if not request.begun:
            for name in request.names[: (request.length - 1) // self.settings.size]:
                if not self.known(name):
                    break
                count += 1
        return count

    def need(self, tokens: int) -> int:
        return -(-tokens // self.settings.size)

    def take(self, request: Request, tokens: int) -> None:
        """Give a request the blocks of so many tokens."""
        while len(request.blocks) < self.need(tokens):
            if self.free() - len(self.unheld) < 1:
                self.unheld.pop(0)
            request.blocks.append(None)

    def name_blocks(self, request: Request, tokens: int) -> None:
        for place in range(tokens // self.settings.size):
            if place >= len(request.names):
                break
            if request.blocks[place] is None:
                if self.known(request.names[place]):
                    break
                request.blocks[place] = request.names[place]

    def drop(self, request: Request) -> None:
        blocks, request.blocks = request.blocks, []
        for name in reversed(blocks):
            if name is not None and not any(name in one.blocks for one in self.active):
                self.unheld.append(name)
        request.computed, request.begun, request.generating = 0, False, False

    # A decision

    def decide(self) -> Planned | None:
        settings = self.settings
        while self.queue and len(self.active) < settings.seats:
            self.active.append(self.queue.pop(0))
        decodes, prompts = self.choose()
        if settings.wait_steps and decodes and prompts:
            tokens = len(decodes) + sum(tokens for _, tokens in prompts)
            if self.waited < settings.wait_steps and tokens < settings.wait_share * settings.budget:
                self.waited += 1
                prompts = []
            else:
                self.waited = 0
        return self.take_step(decodes, prompts)

    def choose(self) -> tuple[list[Request], list[tuple[Request, int]]]:
        settings = self.settings
        open_ones = [
            one
            for one in self.active
            if not (settings.overlap and one.coming and one.written + 1 >= one.limit)
        ]
        fits = (
            self.utilized(open_ones) if settings.capacity == "max_utilization" else self.reserved(open_ones)
        )
        return self.batch(fits)

    def take_step(self, decodes: list[Request], prompts: list[tuple[Request, int]]) -> Planned | None:
        for request, _ in prompts:
            if not request.begun:
                names = request.names[: self.found(request)]
                self.unheld = [name for name in self.unheld if name not in names]
                request.blocks = list(names)
                request.computed = len(names) * self.settings.size
                request.begun = True
        parts = []
        for request, tokens in prompts:
            self.take(request, request.length)
            context = request.computed
            if request.found < 0:
                request.found = context
            chunk = min(tokens, request.length - context)  # reuse moves a chunk forward, not beyond the end
            request.computed += chunk
            request.generating = request.computed == request.length
            request.incomplete = True
            parts.append((request, chunk, context, request.generating))
        past = sum(one.computed for one in decodes)
        for request in decodes:
            request.computed += 1
            self.take(request, request.computed)
        if not parts and not decodes:
            return None
        return Planned(parts, [(one, one.pauses) for one in decodes], past)

    def must_run(self) -> bool:
        """Whether no rank steps where this one runs none of its requests."""
        return bool(self.active)

    def duplicate(self, request: Request, chosen: list[Request]) -> bool:
        """Whether the first unknown block of a prompt is about to be computed for somebody else."""
        if request.begun:
            return False
        names = request.names[: (request.length - 1) // self.settings.size]
        known = self.found(request)
        if known == len(names):
            return False
        computing = [one for one in self.active if one.incomplete]
        computing += [one for one in chosen if not one.generating]
        return any(names[known] in one.names[: one.length // self.settings.size] for one in computing)

    def reserved(self, listed: list[Request]) -> list[Request]:
        seats = self.settings.seats
        chosen = [one for one in listed if one.generating][:seats]
        left = self.free() - sum(self.need(one.prompt + one.limit) - len(one.blocks) for one in chosen)
        if chosen and self.settings.capacity == "static_batch":
            return chosen
        for one in listed:
            if one.generating:
                continue
            if len(chosen) == seats:
                break
            if self.duplicate(one, chosen):
                continue
            needed = self.need(one.prompt + one.limit) - len(one.blocks)
            if needed > left:
                break
            left -= needed
            chosen.append(one)
        return chosen

    def utilized(self, listed: list[Request]) -> list[Request]:
        listed, chosen, promised = list(listed), [], 0
        while len(chosen) < self.settings.seats:
            rest = [one for one in listed if one not in chosen]
            passed = [one for one in rest if self.duplicate(one, chosen)]
            candidates = [one for one in rest if one not in passed and not self._behind(listed, one, chosen)]
            if not candidates:
                return chosen
            one = candidates[0]
            needed = self.need(one.length) if not one.begun else 0
            if one.generating:
                needed = max(0, self.need(one.computed + 1) - len(one.blocks))
            if needed <= self.free() - promised:
                promised += needed
                chosen.append(one)
                continue
            started = [other for other in listed[listed.index(one) :] if other.begun]
            if not started:
                return chosen
            last = started[-1]
            listed = listed[: listed.index(last)]
            self.drop(last)
            last.pauses += 1
            last.coming = last.incomplete = False
        return chosen

    @staticmethod
    def _behind(listed: list[Request], one: Request, chosen: list[Request]) -> bool:
        """Whether the pass has gone on beyond a request: somebody after it is chosen."""
        return bool(chosen) and listed.index(one) < listed.index(chosen[-1])

    def batch(self, fits: list[Request]) -> tuple[list[Request], list[tuple[Request, int]]]:
        settings, size = self.settings, self.settings.size
        left = settings.budget
        decodes: list[Request] = []
        prompts: list[Request] = []
        cost = {}
        for one in fits:
            if len(decodes) + len(prompts) == settings.seats:
                break
            if one.generating:
                if left < 1:
                    break
                left -= 1
                decodes.append(one)
                continue
            cost[one] = one.length - one.computed - self.found(one) * size
            if settings.unit is None:
                if cost[one] > left:
                    break
                left -= cost[one]
            prompts.append(one)
        if settings.unit is None or sum(cost[one] for one in prompts) <= left:
            return decodes, [(one, cost[one]) for one in prompts]
        return decodes, self.equal(prompts, left) if settings.chunking == "equal_progress" else self.in_order(
            prompts, left
        )

    def in_order(self, prompts: list[Request], left: int) -> list[tuple[Request, int]]:
        unit, parts = self.settings.unit or 1, []
        for one in prompts:
            rest = one.length - one.computed - self.found(one) * self.settings.size
            tokens = rest if rest <= left else left - left % unit
            left -= tokens
            if tokens:
                parts.append((one, tokens))
        return parts

    def equal(self, prompts: list[Request], left: int) -> list[tuple[Request, int]]:
        unit = self.settings.unit or 1
        spared = {one: self.found(one) * self.settings.size for one in prompts}
        whole = {one: one.length - one.computed for one in prompts}
        given = dict.fromkeys(prompts, 0)

        def price(one: Request, tokens: int) -> int:
            return tokens - spared[one] if tokens == whole[one] else tokens

        while True:
            progress = False
            for one in prompts:
                more = min(given[one] + unit, whole[one])
                if more > given[one] and price(one, more) - price(one, given[one]) <= left:
                    left -= price(one, more) - price(one, given[one])
                    given[one] = more
                    progress = True
            if not progress:
                break
        return [(one, price(one, given[one])) for one in prompts if given[one]]

    def is_cancelled(self, request: Request, now: int) -> bool:
        """Whether an active request is cancelled by now, for the first time; one that queues is removed at once."""
        if request.withdrawn is None or request.withdrawn > now or request.told or request.arrival > now:
            return False
        request.told = True
        if request in self.queue:
            self.queue.remove(request)
            return False
        return not request.done

    # A result

    def deliver(self, step: Planned) -> None:
        for request, _, _, complete in step.prompts:
            request.coming = False
            if not complete or request.done:
                continue
            self.write(request, step.end)
            request.incomplete = False
            if not request.done and request.begun:
                self.name_blocks(request, request.length - 1)
        for request, pauses in step.decodes:
            if request.done or request.pauses != pauses:
                continue
            request.coming = False
            self.write(request, step.end)

    def write(self, request: Request, now: int) -> None:
        request.written += 1
        if request.first < 0:
            request.first = now
        if request.written >= request.output:
            self.end(request, now)

    def end(self, request: Request, now: int) -> None:
        request.finish, request.done, request.incomplete = now, True, False
        if request.begun:
            self.name_blocks(request, min(request.computed, request.length))
        self.active.remove(request)
        self.drop(request)
