"""A naive simulator of SGLang's scheduler, decision by decision and request by request, with no shortcuts.

It is written from a description of the scheduler's rules in words, not from the simulator it checks.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oracles.radix_tree import Node, RadixTree

MOST_RESERVED = 4096
RETRACT_STEPS = 20
COMPARED = 32
MOST_MATCHED = 128


@dataclass
class Settings:
    max_running_requests: int
    max_prefill_tokens: int
    chunked_prefill_size: int | None
    page_size: int
    max_total_num_tokens: int
    schedule_policy: str = "fcfs"
    schedule_conservativeness: float = 1.0
    mixed_chunk: bool = False
    radix_cache: bool = True
    overlap: bool = True
    fixed: int = 0
    per_token: int = 0
    per_context: int = 0
    scheduler_recv_interval: int = 1


@dataclass(eq=False)
class Request:
    number: int
    arrival: int
    prompt: int
    output: int
    limit: int
    ignore_eos: bool
    content: list[int]  # tokens of the prompt and of the whole answer
    out: int = 0
    computed: int = 0
    protected: int = 0
    node: Node | None = None
    finished: bool = False
    epoch: int = 0
    cached: int | None = None
    first: int = -1
    finish: int = -1
    withdrawn: int | None = None  # when it is taken back
    told: bool = False  # the scheduler knows that it is

    @property
    def length(self) -> int:
        return self.prompt + self.out

    @property
    def present(self) -> list[int]:
        return self.content[: self.length]


@dataclass
class Step:
    mode: str
    tokens: list[tuple[Request, int]]
    ends_prompt: dict[Request, bool]
    context: int
    retracted: list[int]
    prefilled: dict[Request, int] = field(default_factory=dict)  # where its prefill ends in this step
    epochs: dict[Request, int] = field(default_factory=dict)
    start: int = 0
    duration: int = 0


class SGLangScheduler:
    """Runs requests to their end; ``steps`` are as the real engine's schedules are recorded."""

    def __init__(self, settings: Settings, requests: list[Request]) -> None:
        self.s = settings
        self.p = settings.page_size
        self.requests = sorted(requests, key=lambda r: r.arrival)
        self.tree = RadixTree(self.p)
        self.free = settings.max_total_num_tokens // self.p * self.p
        self.first_ratio = min(0.7 * settings.schedule_conservativeness, 1.0)
        self.least_ratio = min(0.14 * self.first_ratio, 1.0)
        self.decay = (self.first_ratio - self.least_ratio) / 600
        self.ratio = self.first_ratio
        self.waiting: list[Request] = []
        self.running: list[Request] = []
        self.full = False
        self.chunked: Request | None = None
        self.last: Step | None = None
        self.in_flight: Step | None = None
        self.refreshes = 0
        self.passed = 0
        self.steps: list[Step] = []
        self.retracted: list[int] = []

    def requests_by_number(self) -> list[Request]:
        return sorted(self.requests, key=lambda request: request.number)

    # Time

    def run(self) -> None:
        now, coming = 0, 0
        while True:
            if self.looks():
                while coming < len(self.requests) and self.requests[coming].arrival <= now:
                    self.waiting.append(self.requests[coming])
                    coming += 1
                for request in self.requests[:coming]:
                    if request.withdrawn is not None and request.withdrawn <= now and not request.told:
                        self.abort(request)
            step = self.decide()
            self.last = step
            before = self.in_flight
            if step is not None:
                step.start = now if before is None else before.start + before.duration
                tokens = sum(count for _, count in step.tokens)
                step.duration = self.s.fixed + self.s.per_token * tokens + self.s.per_context * step.context
                step.epochs = {request: request.epoch for request, _ in step.tokens}
                self.steps.append(step)
            if not self.s.overlap:
                before, self.in_flight = step, None
            else:
                self.in_flight = step
            if before is not None:
                now = before.start + before.duration
                self.deliver(before, now)
            elif step is None:
                if not self.waiting and not self.running and self.chunked is None:
                    self.ratio = self.first_ratio
                if coming == len(self.requests):
                    break
                now = max(now, self.requests[coming].arrival)
                self.passed = self.s.scheduler_recv_interval  # an idle loop turns until it has looked

    def looks(self) -> bool:
        """Whether requests are received before this decision: the steps passed since reach the interval."""
        prompts = self.last is not None and self.last.mode != "decode"
        self.passed += 1000 if prompts else 1
        if self.passed < self.s.scheduler_recv_interval:
            return False
        self.passed = 0
        return True

    def abort(self, request: Request) -> None:
        """One that waits is removed at once; one that runs is finished with the token that it gets next."""
        request.told = True
        if request in self.waiting:
            self.waiting.remove(request)
        elif not request.finished:
            request.output = min(request.output, request.out + 1)

    # Memory

    def up(self, tokens: int) -> int:
        return -(-tokens // self.p) * self.p

    def down(self, tokens: int) -> int:
        return tokens // self.p * self.p

    @property
    def room(self) -> int:
        return self.free + self.tree.evictable

    def evict_until(self, wanted: int) -> None:
        if self.s.radix_cache and self.free < wanted:
            self.free += self.tree.evict(wanted - self.free)

    def publish(self, request: Request, tokens: int) -> None:
        if not self.s.radix_cache:
            return
        whole = self.down(tokens)
        content = request.present[:whole]
        node, there = self.tree.insert(content)
        self.free += there - request.protected
        prompt = self.down(request.prompt)
        if 0 < prompt < whole:
            self.tree.insert(content[:prompt])
            node, _ = self._end_of(content)
        self.tree.hold(node, 1)
        self.tree.hold(request.node, -1)
        request.node = node
        request.protected = whole

    def _end_of(self, content: list[int]) -> tuple[Node, int]:
        node, known = self.tree.root, 0
        while known < len(content):
            node = node.children[tuple(content[known : known + self.p])]
            known += len(node.tokens)
        return node, known

    def give_back(self, request: Request) -> None:
        self.free += self.up(request.computed) - request.protected
        self.tree.hold(request.node, -1)
        request.node = None
        request.computed = request.protected = 0

    # A decision

    def decide(self) -> Step | None:
        self.retracted = []
        if self.chunked is not None:
            self.publish(self.chunked, self.chunked.computed)
        last = self.last
        if last is not None and last.mode != "decode":
            everyone = [request for request, _ in last.tokens]
            rest = [r for r in everyone if not self.gone(r, last) and r is not self.chunked]
            if len(rest) < len(everyone):
                self.full = False
            if rest:
                if not self.running:
                    self.full = False
                self.running = self.running + rest
        kept = [request for request in self.running if not request.finished]
        if len(kept) < len(self.running):
            self.full = False
        self.running = kept
        return self.prefill_step() or self.decode_step()

    @staticmethod
    def gone(request: Request, step: Step) -> bool:
        return request.finished or request.epoch != step.epochs[request]

    def charge(self, tokens: int, future: int) -> None:
        self.all += self.up(tokens) + self.p + future
        self.now += self.up(tokens) + self.p
        self.tokens -= self.up(tokens)
        if self.chunk is not None:
            self.chunk -= self.up(tokens)

    def verdict(self) -> str:
        if self.room - self.all <= 0 or self.room - self.now <= 0:
            return "memory"
        if self.tokens <= 0 or (self.chunk is not None and self.chunk <= 0):
            return "stop"
        return "go"

    def prefill_step(self) -> Step | None:
        s = self.s
        if not self.running:
            self.full = False
        if (self.full or not self.waiting) and self.chunked is None:
            return None
        seats = self.seats()
        if seats <= 0 and self.chunked is None:
            self.full = True
            return None
        self.sort_waiting()
        mixed = len(self.running) if s.mixed_chunk else 0
        self.tokens = s.max_prefill_tokens - mixed
        self.chunk = None if s.chunked_prefill_size is None else s.chunked_prefill_size - mixed
        self.now = self.all = mixed
        self.all += sum(
            min(r.limit - r.out, MOST_RESERVED) * (1.0 if r.ignore_eos else self.ratio) for r in self.running
        )
        self.states: list[tuple[float, int]] | None = None
        picked: list[tuple[Request, int]] = []
        ends: dict[Request, bool] = {}
        if self.chunked is not None:
            request = self.chunked
            missing = request.length - request.computed
            assert self.chunk is not None
            most = min(self.chunk, int(self.room - self.all))
            if most <= 0:
                most = self.chunk
            part = min(missing, most)
            ends[request] = part == missing
            self.charge(part, min(request.limit, MOST_RESERVED) if ends[request] else 0)
            picked.append((request, part))
            if ends[request]:
                self.chunked = None
        self.admit(picked, ends, seats)
        if not picked:
            return None
        total = sum(part for _, part in picked)
        self.evict_until(total if self.p == 1 else total + self.p * len(picked))
        context = 0
        for request, part in picked:
            context += request.computed
            self.free -= self.up(request.computed + part) - self.up(request.computed)
            request.computed += part
        step = Step("extend", picked, ends, context, [])
        step.prefilled = {request: request.computed for request, _ in picked}
        if s.mixed_chunk and self.running:
            self.leave_by_length()
            if self.running and self.fits(self.running):
                self.take_decode_memory()
                step.mode = "mixed"
                self.add_decodes(step)
                self.running = []
        return step

    def seats(self) -> int:
        return self.s.max_running_requests - len(self.running)

    def admit(self, picked: list[tuple[Request, int]], ends: dict[Request, bool], seats: int) -> None:
        verdict = self.verdict()
        for request in list(self.waiting):
            if verdict == "stop":
                break
            if len(picked) >= seats:
                self.full = True
            if self.full:
                break
            prefix, node = 0, None
            if self.s.radix_cache:
                node, prefix = self.tree.match(request.content[: request.length - 1])
            left = request.length - prefix
            self.tree.hold(node, 1)
            if self.s.radix_cache or not request.ignore_eos:
                part = self.part_with_reserve(request, prefix, left, bool(picked))
            else:
                part = self.part_with_look_ahead(request, left, [r for r, _ in picked])
            if isinstance(part, str):
                self.tree.hold(node, -1)
                verdict = part
            else:
                request.node, request.protected, request.computed = node, prefix, prefix
                if request.cached is None:
                    request.cached = prefix
                ends[request] = part == left
                self.charge(part, min(request.limit, MOST_RESERVED) if part == left else 0)
                if part < left:
                    self.chunked = request
                picked.append((request, part))
                self.waiting.remove(request)
                verdict = self.verdict()
            if verdict == "memory":
                self.full = bool(picked) or bool(self.running)
            if verdict != "go":
                break

    def part_with_reserve(self, request: Request, prefix: int, left: int, somebody: bool) -> int | str:
        need = left + min(request.limit - request.out, MOST_RESERVED) + self.p
        if need >= self.room - self.all:
            return "memory"
        if self.chunk is None:
            return "stop" if somebody and self.up(left) >= self.tokens else left
        if self.up(left) <= self.chunk:
            return left
        part = self.down(prefix + self.down(self.chunk)) - prefix
        return part if part > 0 else "stop"

    def part_with_look_ahead(self, request: Request, left: int, picked: list[Request]) -> int | str:
        if self.up(left) + self.p > min(self.room - self.now, self.room - self.all):
            return "memory"

        def state(r: Request) -> tuple[float, int]:
            return r.limit * (1.0 if r.ignore_eos else self.ratio) - r.out, r.prompt + r.out

        if self.states is None:
            states = [state(r) for r in [request, *self.running, *picked]]
            self.states = sorted((entry for entry in states if entry[0] > 0), key=lambda entry: entry[0])
        else:
            entry = state(request)
            if entry[0] > 0:
                place = next((i for i, (t, _) in enumerate(self.states) if t >= entry[0]), None)
                if place is None:
                    place = max(0, len(self.states) - 1)
                self.states.insert(place, entry)
        left_over = self.room - self.now - self.up(left) - self.p
        freed, count = 0, len(self.states)
        for k, (tokens, held) in enumerate(self.states):
            if left_over + freed - tokens * (count - k) <= count - k:
                return "memory"
            freed += held
        if self.chunk is None or left <= self.chunk:
            return left
        return self.chunk if self.chunk > 0 else "stop"

    def sort_waiting(self) -> None:
        if not self.s.radix_cache or not self.waiting:
            return
        if self.s.schedule_policy == "fcfs":
            if self.refreshes % 32 == 0:
                for request in self.waiting[::-1][:MOST_MATCHED]:
                    self.tree.match(request.present)
            self.refreshes += 1
            return
        if len(self.waiting) > MOST_MATCHED:
            return
        kept: list[Request] = []
        keys: dict[Request, tuple[bool, int]] = {}
        for request in self.waiting:
            _, match = self.tree.match(request.present)
            off = False
            if match <= COMPARED:
                tokens = request.present[:COMPARED]
                if len(tokens) == COMPARED and any(other.present[:COMPARED] == tokens for other in kept):
                    off = True
                else:
                    kept.append(request)
            keys[request] = (off, -min(match, request.length - 1))
        self.waiting.sort(key=lambda r: (True, 0) if keys[r][0] else keys[r])

    # Decoding

    def leave_by_length(self) -> bool:
        if not self.s.overlap:
            return False
        flying = {} if self.in_flight is None else dict(self.in_flight.tokens)
        rest = [r for r in self.running if not (r in flying and r.out + 1 >= r.limit)]
        left = len(rest) < len(self.running)
        if left:
            self.full = False
        self.running = rest
        return left

    def fits(self, batch: list[Request]) -> bool:
        need = self.p * sum(1 for request in batch if request.computed % self.p == 0)
        self.evict_until(need)
        return self.free >= need

    def take_decode_memory(self) -> None:
        self.evict_until(self.p * len(self.running))
        for request in self.running:
            if request.computed % self.p == 0:
                self.free -= self.p

    def add_decodes(self, step: Step) -> None:
        for request in self.running:
            step.context += request.computed
            request.computed += 1
            step.tokens.append((request, 1))
            step.ends_prompt[request] = True

    def decode_step(self) -> Step | None:
        if not self.running:
            return None
        before = len(self.running)
        left = self.leave_by_length()
        if not self.running:
            self.full = False
            return None
        self.before_decode()
        if not self.fits(self.running):
            if left:
                self.full = False
                return None
            self.retract()
        else:
            self.ratio = max(self.ratio - self.decay, self.least_ratio)
        if len(self.running) < before:
            self.full = False
        self.take_decode_memory()
        step = Step("decode", [], {}, 0, sorted(self.retracted))
        self.add_decodes(step)
        return step

    def before_decode(self) -> None:
        """Nothing is noticed without a host's memory."""

    def retract(self) -> None:
        order = sorted(self.running, key=lambda r: (-r.out, r.prompt))
        first = True
        while first or not self.fits(order):
            if len(order) == 1:
                break
            first = False
            request = order.pop()
            self.give_back(request)
            request.epoch += 1
            self.waiting.append(request)
            self.retracted.append(request.number)
            self.evict_until(RETRACT_STEPS * len(order))
        self.running = order
        out = sum(r.out for r in order)
        self.ratio = min(1.0, (out + RETRACT_STEPS * len(order)) / (sum(r.limit for r in order) + 1))

    # Results

    def deliver(self, step: Step, now: int) -> None:
        for request, _ in step.tokens:
            if self.gone(request, step) or not step.ends_prompt[request]:
                continue
            request.out += 1
            if request.out == 1:
                request.first = now
            if request.out >= request.output:
                request.finished = True
                request.finish = now
                self.publish(request, min(request.computed, request.length))
                self.give_back(request)
            elif request in step.prefilled:
                self.publish(request, step.prefilled[request])
