"""One prefill and one decode client of SGLang and the link between them, naive, with every rule in words.

A request is known to both clients when it arrives. On the decode client it asks for memory. When it has it, it joins
the waiting queue of the prefill client, which computes its prompt and one token. Its KV sets out when that step is
over, and stays on the prefill client until all of it has come; its row stays as long. A request of one token is over
with its prompt, and the decode client does not know it.

Prefill client. Nobody runs but the prompts of the step; a prompt reserves one token of its answer. There are
max_running_requests rows; a prompt needs one from its first part until its KV is gone.

Decode client, before each decision, with the running ones as the last decision has left them:
1. Those that were retracted get memory again, in order, each if a row is free and its tokens and R more fit what is
   left of free − R × (running + coming + waiting); they join the waiting. If one is left over, 2 and 3 are left out.
2. Those that ask get memory, in order, for their prompt. Room is free − max(R × (running + coming + waiting + those
   that got some just now), the largest prompt + min(limit, 4096) of a running one − all tokens of the running ones).
   A request needs a row, and its prompt + R, and its prompt + min(limit, 4096) − all tokens of the running ones, not
   to exceed the room. The first that lacks anything ends the pass.
3. Those whose KV is here join the waiting, in the order in which they got memory.
4. The waiting join the running while there are fewer than max_running_requests, and have their first token then.
Then those that are over leave, and everybody else decodes as usual. If nothing can run then, and somebody has left,
and no step runs, all of this is done again at once. Who is retracted gives its row and memory back and keeps its
tokens. There are max_running_requests rows, three times as many if these are at most 32. R is
num_reserved_decode_tokens.

With an interval I the decode client counts 1 for each of its decisions, and only where the count reaches I it takes
in the requests that have come, before anything else, and counts from 0. One with nothing to decide takes in a
request at once. It looks for KV before each decision.

Ranks. Either client may have several, each with all of that for its own requests. They decide at the same instants,
in order, and their steps end together, with the longest. The decode client gives requests to its ranks in turns, in
the order in which they come. The rank of a prompt is given (its room).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from oracles.lone_link import LoneLink
from oracles.sglang_scheduler import MOST_RESERVED, Request, Settings, SGLangScheduler, Step


class AbortedError(Exception):
    """The engine aborts a request: it is the last that runs, and there is no memory for its next token."""


class Server:
    """The schedulers of ranks with one clock in nanoseconds: ``plan_at`` is their next decision."""

    def __init__(self, ranks: Sequence[SGLangScheduler]) -> None:
        self.ranks = ranks
        self.plan_at: int | None = None
        self.last_plan = self.end = 0
        self.running = False  # a step is in flight whose results are not delivered
        self.steps = 0
        self.passed = 0
        self.inbox: list[tuple[DecodeScheduler, Request]] = []

    def come(self, rank: DecodeScheduler, request: Request, now: int) -> None:
        self.inbox.append((rank, request))
        if self.plan_at is None:
            self.passed = rank.s.scheduler_recv_interval
        self.wake(now)

    def look(self) -> None:
        self.passed += 1
        if self.passed >= self.ranks[0].s.scheduler_recv_interval:
            self.passed = 0
            for rank, request in self.inbox:
                rank.asking.append(request)
            self.inbox = []

    def wake(self, now: int) -> None:
        if self.plan_at is None:
            self.plan_at = max(now, self.end, self.last_plan)

    def decide(self) -> None:
        now = self.plan_at
        assert now is not None
        self.last_plan = now
        self.look()
        steps = [s.decide_at(now) if isinstance(s, DecodeScheduler) else s.decide() for s in self.ranks]
        before = [s.in_flight for s in self.ranks]
        ran, ended_at = any(before), self.end
        if any(steps):
            start = self.end if ran else now
            self.end = start + max(self.lasts(step) for step in steps if step is not None)
            self.steps += 1
        overlap = self.ranks[0].s.overlap
        if not overlap:
            before, ran, ended_at = list(steps), any(steps), self.end
        for s, step in zip(self.ranks, steps, strict=True):
            s.last = step
            if step is not None:
                step.epochs = {request: request.epoch for request, _ in step.tokens}
                s.steps.append(step)
            s.in_flight = step if overlap else None
        if ran:
            self.plan_at = ended_at
            for s, step in zip(self.ranks, before, strict=True):
                if step is not None:
                    s.deliver(step, ended_at)
        elif not any(steps) and not any(isinstance(s, DecodeScheduler) and s.left for s in self.ranks):
            self.plan_at = None
            if self.inbox:
                self.passed = self.ranks[0].s.scheduler_recv_interval
                self.plan_at = now

    def lasts(self, step: Step) -> int:
        s = self.ranks[0].s
        return s.fixed + s.per_token * sum(count for _, count in step.tokens) + s.per_context * step.context


class PrefillScheduler(SGLangScheduler):
    """``complete(request, at)`` is called for each prompt that is complete."""

    def __init__(self, settings: Settings, complete: Callable[[Request, int], None], alone: set[int]) -> None:
        """``alone``: requests that nobody decodes."""
        super().__init__(settings, [])
        self.complete = complete
        self.rows: list[Request] = []
        self.alone = alone

    def seats(self) -> int:
        return self.s.max_running_requests - len(self.rows) + (1 if self.chunked is not None else 0)

    def decide(self) -> Step | None:
        if self.chunked is not None:
            self.publish(self.chunked, self.chunked.computed)
        self.full = False
        step = self.prefill_step()
        for request, _ in step.tokens if step is not None else []:
            if request not in self.rows:
                self.rows.append(request)
        return step

    def deliver(self, step: Step, now: int) -> None:
        for request, _ in step.tokens:
            if step.ends_prompt[request]:
                request.out = 1
                request.first = now
                request.finished = True
                if request.number in self.alone:
                    self.let_go(request)
                else:
                    self.publish(request, request.computed)
                    self.complete(request, now)

    def let_go(self, request: Request) -> None:
        self.publish(request, min(request.computed, request.length))
        self.give_back(request)
        self.rows.remove(request)


class DecodeScheduler(SGLangScheduler):
    """The decode client; ``granted`` are those that have got memory in the last decision."""

    def __init__(self, settings: Settings, reserved: int) -> None:
        super().__init__(settings, [])
        self.reserved = reserved
        most = settings.max_running_requests
        self.rows = 3 * most if most <= 32 else most
        self.asking: list[Request] = []
        self.coming: list[Request] = []
        self.here: list[Request] = []
        self.thrown_out: list[Request] = []
        self.granted: list[Request] = []
        self.left = False

    def decide_at(self, now: int) -> Step | None:
        self.retracted, self.granted = [], []
        self.resume()
        if not self.thrown_out:
            self.give_memory()
            self.waiting += [request for request in self.coming if request in self.here]
            self.coming = [request for request in self.coming if request not in self.here]
            self.here = []
        while self.waiting and len(self.running) < self.s.max_running_requests:
            request = self.waiting.pop(0)
            if request.out == 0:
                request.out, request.first = 1, now
            self.running = [*self.running, request]
        kept = [request for request in self.running if not request.finished]
        self.left, self.running = len(kept) < len(self.running), kept
        step = self.decode_step()
        if self.free < 0:
            raise AbortedError
        return step

    def resume(self) -> None:
        room = self.free - self.reserved * (len(self.running) + len(self.coming) + len(self.waiting))
        resumed = []
        for request in self.thrown_out:
            need = request.prompt + request.out - 1 + self.reserved
            if self.rows == 0 or need > room:
                break
            self.fill(request)
            room -= need
            resumed.append(request)
        self.thrown_out = [request for request in self.thrown_out if request not in resumed]
        self.waiting += resumed

    def give_memory(self) -> None:
        held = sum(request.length for request in self.running)
        for request in list(self.asking):
            count = len(self.running) + len(self.coming) + len(self.waiting) + len(self.granted)
            least = self.reserved * count
            if self.running:
                largest = max(r.prompt + min(r.limit, MOST_RESERVED) for r in self.running)
                least = max(least, largest - held)
            room = self.free - least
            answer = request.prompt + min(request.limit, MOST_RESERVED) - held
            if self.rows == 0 or request.prompt + self.reserved > room or answer > room:
                break
            self.fill(request)
            self.asking.remove(request)
            self.granted.append(request)
        self.coming += self.granted

    def fill(self, request: Request) -> None:
        self.rows -= 1
        request.computed = request.prompt + max(0, request.out - 1)
        self.free -= self.up(request.computed)

    def retract(self) -> None:
        waiting, self.waiting = self.waiting, []
        super().retract()
        self.rows += len(self.waiting)
        self.thrown_out += self.waiting
        self.waiting = waiting

    def deliver(self, step: Step, now: int) -> None:
        running = [request for request, _ in step.tokens if not self.gone(request, step)]
        super().deliver(step, now)
        self.rows += sum(request.finished for request in running)


class Pair:
    """Both clients and the link; requests are those of the decode client, their ``computing`` those of the other."""

    def __init__(
        self,
        prefill: Settings,
        decode: Settings,
        reserved: int,
        link: tuple[int, int, int],
        requests: list[tuple[Request, Request]],
        rooms: Sequence[int] = (),
        ranks: tuple[int, int] = (1, 1),
    ) -> None:
        """``link`` has the bytes per ns, the latency in ns and the bytes of a token's KV.

        ``ranks`` are those of the prefill client, which ``rooms`` choose by request, and of the decode client.
        """
        bytes_per_ns, self.latency, self.token = link
        self.link = LoneLink(bytes_per_ns)
        self.complete: list[tuple[int, Request]] = []
        alone = {asked.number for asked, _ in requests if asked.output == 1}
        self.prefill = [
            PrefillScheduler(prefill, lambda request, at: self.complete.append((at, request)), alone)
            for _ in range(ranks[0])
        ]
        self.decode = [DecodeScheduler(decode, reserved) for _ in range(ranks[1])]
        self.servers = (Server(self.prefill), Server(self.decode))
        self.requests = requests
        self.arriving = sorted(requests, key=lambda pair: (pair[0].arrival, pair[0].number))
        self.rank_of_prompt = {own: rooms[own.number] % ranks[0] if rooms else 0 for _, own in requests}
        self.rank_of_answer: dict[Request, int] = {}
        self.waited: list[Request] = []  # that had no memory on the decode client as they came

    def run(self) -> None:
        prefill, decode = self.servers
        while (now := self.next_instant()) is not None:
            while self.complete and self.complete[0][0] == now:
                request = self.complete.pop(0)[1]
                self.link.send(request.prompt * self.token, request, now, self.latency)
            while self.link.next_ns() == now:
                for request in self.link.run(now):
                    self.prefill[self.rank_of_prompt[request]].let_go(request)
                    prefill.wake(now)
                    asked = self.asked(request)
                    self.decode[self.rank_of_answer[asked]].here.append(asked)
                    decode.wake(now)
            while self.arriving and self.arriving[0][0].arrival == now:
                asked, computing = self.arriving.pop(0)
                if asked.output > 1:
                    rank = len(self.rank_of_answer) % len(self.decode)
                    self.rank_of_answer[asked] = rank
                    decode.come(self.decode[rank], asked, now)
                else:
                    self.prefill[self.rank_of_prompt[computing]].waiting.append(computing)
                    prefill.wake(now)
            while now in (prefill.plan_at, decode.plan_at):
                while prefill.plan_at == now:
                    prefill.decide()
                if decode.plan_at == now:
                    self.decide(now)

    def decide(self, now: int) -> None:
        """Let the decode client decide all that it decides now; those with memory then join the other's queue."""
        granted = []
        while self.servers[1].plan_at == now:
            self.servers[1].decide()
            granted += [request for rank in self.decode for request in rank.granted]
        self.waited += [request for rank in self.decode for request in rank.asking]
        for request in granted:
            computing = next(own for asked, own in self.requests if asked is request)
            self.prefill[self.rank_of_prompt[computing]].waiting.append(computing)
            self.servers[0].wake(now)

    def asked(self, computing: Request) -> Request:
        return next(asked for asked, own in self.requests if own is computing)

    def next_instant(self) -> int | None:
        instants = [at for at, _ in self.complete[:1]] + [asked.arrival for asked, _ in self.arriving[:1]]
        instants += [server.plan_at for server in self.servers if server.plan_at is not None]
        instants += [at for at in [self.link.next_ns()] if at is not None]
        return min(instants, default=None)
