"""One prefill and one decode client of TensorRT-LLM and the link between them, naive, with every rule in words.

Prefill client. A request is one of one token. When its prompt is complete it gives up its seat, its blocks can be
found, and its KV sets out as soon as the decode client has memory; the blocks stay until all of it has come. A
request of one token is over with its prompt, and the decode client does not know it.

Decode client. A request comes when its prompt is complete. There are as many active ones as seats, and the others
queue. Before a step those that decode have, in order, the blocks to their limits set aside; then those that ask, in
order of arrival, each if a seat is left in the pass and the blocks of its prompt and limit are: it takes those of its
prompt. The first that lacks them ends the pass. Those whose KV is on the way are passed over, and the blocks to their
limits are set aside as well. One whose KV is here decodes with the others, in order of arrival, within the budget of
the step. It has its first token as the first such step is decided. A static batch takes nobody in while somebody
decodes.
"""

from __future__ import annotations

from oracles.lone_link import LoneLink
from oracles.tensorrt_llm_scheduler import Oracle, Planned, Request, Settings


class PrefillSide(Oracle):
    """The prefill client; ``complete`` are its complete prompts that somebody awaits, with the instants."""

    def __init__(self, settings: Settings, alone: list[Request]) -> None:
        super().__init__(settings, [])
        self.alone = alone
        self.complete: list[tuple[int, Request]] = []
        self.held: list[Request] = []

    def end(self, request: Request, now: int) -> None:
        if request in self.alone:
            super().end(request, now)
            return
        request.finish, request.done, request.incomplete = now, True, False
        self.name_blocks(request, request.computed)
        self.active.remove(request)
        self.held.append(request)
        self.complete.append((now, request))

    def free(self) -> int:
        holding = [*self.active, *self.held]
        named = {name for one in holding for name in one.blocks if name is not None}
        nameless = sum(name is None for one in holding for name in one.blocks)
        return self.settings.blocks - len(named) - nameless

    def known(self, name: int) -> bool:
        return super().known(name) or any(name in one.blocks for one in self.held)

    def drop(self, request: Request) -> None:
        blocks, request.blocks = request.blocks, []
        for name in reversed(blocks):
            if name is not None and not any(name in one.blocks for one in [*self.active, *self.held]):
                self.unheld.append(name)
        request.computed, request.begun, request.generating = 0, False, False

    def let_go(self, request: Request) -> None:
        self.held.remove(request)
        self.drop(request)


class DecodeSide(Oracle):
    """The decode client."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, [])
        self.coming: list[Request] = []
        self.granted: list[Request] = []
        self.now = 0

    def decide(self) -> Planned | None:
        settings = self.settings
        self.granted = []
        while self.queue and len(self.active) < settings.seats:
            self.active.append(self.queue.pop(0))
        listed = [
            one
            for one in self.active
            if one not in self.coming
            and not (settings.overlap and one.coming and one.written + 1 >= one.limit)
        ]
        decoding = [one for one in listed if one.generating][: settings.seats]
        kept = [*decoding, *self.coming]
        left = self.free() - sum(self.need(one.prompt + one.limit) - len(one.blocks) for one in kept)
        count = len(decoding)
        if not (decoding and settings.capacity == "static_batch"):
            for one in listed:
                if one.generating:
                    continue
                needed = self.need(one.prompt + one.limit)
                if count == settings.seats or needed > left:
                    break
                left, count = left - needed, count + 1
                one.begun, one.computed = True, one.prompt
                one.blocks = [None] * self.need(one.prompt)
                self.coming.append(one)
                self.granted.append(one)
        decoding = decoding[: settings.budget]
        past = sum(one.computed for one in decoding)
        for one in decoding:
            if one.written == 0:
                one.written, one.first = 1, self.now
            one.computed += 1
            self.take(one, one.computed)
        return Planned([], [(one, one.pauses) for one in decoding], past) if decoding else None


class Server:
    """A client with a clock in nanoseconds."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle = oracle
        self.plan_at: int | None = None
        self.before: Planned | None = None
        self.last_plan = self.tail = 0

    def wake(self, now: int) -> None:
        if self.plan_at is None:
            self.plan_at = max(now, self.tail, self.last_plan)

    def decide(self) -> None:
        oracle, now = self.oracle, self.plan_at
        assert now is not None
        self.last_plan = now
        if isinstance(oracle, DecodeSide):
            oracle.now = now
        step, settings = oracle.decide(), oracle.settings
        if step is not None:
            start = now if self.before is None else self.before.end
            prompts = sum(tokens for _, tokens, _, _ in step.prompts)
            past = step.context + sum(context for _, _, context, _ in step.prompts)
            step.end = (
                start + settings.fixed + settings.each * (len(step.decodes) + prompts) + settings.past * past
            )
            self.tail = step.end
            oracle.steps.append((len(step.decodes), step.context, prompts))
        ended = self.before if settings.overlap else step
        if settings.overlap:
            self.before = step
        if ended is not None:
            self.plan_at = ended.end
            oracle.deliver(ended)
        elif step is None:
            self.plan_at = None
        if self.before is not None:
            for request, _, _, _ in self.before.prompts:
                request.coming = True
            for request, _ in self.before.decodes:
                request.coming = True


class Pair:
    """Both clients and the link; each request is (that of the decode client, that of the prefill client)."""

    def __init__(
        self,
        prefill: Settings,
        decode: Settings,
        link: tuple[int, int, int],
        requests: list[tuple[Request, Request]],
    ) -> None:
        """``link`` has the bytes per ns, the latency in ns and the bytes of a token's KV."""
        bytes_per_ns, self.latency, self.token = link
        self.link = LoneLink(bytes_per_ns)
        self.requests = requests
        self.prefill = PrefillSide(prefill, [own for asked, own in requests if asked.output == 1])
        self.decode = DecodeSide(decode)
        self.servers = (Server(self.prefill), Server(self.decode))
        self.arriving = sorted([own for _, own in requests], key=lambda one: one.arrival)
        self.pushed_back = 0  # requests that had no memory on the decode client as they came

    def run(self) -> None:
        prefill, decode = self.servers
        while (now := self.next_instant()) is not None:
            while self.prefill.complete and self.prefill.complete[0][0] == now:
                computing = self.prefill.complete.pop(0)[1]
                self.decode.queue.append(next(asked for asked, own in self.requests if own is computing))
                decode.wake(now)
            while self.link.next_ns() == now:
                for asked, computing in self.link.run(now):
                    self.prefill.let_go(computing)
                    prefill.wake(now)
                    self.decode.coming.remove(asked)
                    asked.generating = True
                    decode.wake(now)
            while self.arriving and self.arriving[0].arrival == now:
                self.prefill.queue.append(self.arriving.pop(0))
                prefill.wake(now)
            while now in (prefill.plan_at, decode.plan_at):
                while prefill.plan_at == now:
                    prefill.decide()
                if decode.plan_at == now:
                    granted = []
                    while decode.plan_at == now:
                        decode.decide()
                        granted += self.decode.granted
                    waiting = [one for one in self.decode.active if not one.begun]
                    self.pushed_back += len(waiting) + len(self.decode.queue)
                    for asked in granted:
                        pair = next(pair for pair in self.requests if pair[0] is asked)
                        self.link.send(asked.prompt * self.token, pair, now, self.latency)

    def next_instant(self) -> int | None:
        instants = [at for at, _ in self.prefill.complete[:1]] + [one.arrival for one in self.arriving[:1]]
        instants += [server.plan_at for server in self.servers if server.plan_at is not None]
        instants += [at for at in [self.link.next_ns()] if at is not None]
        return min(instants, default=None)
