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

Ranks. Either client may have several, each with seats, a budget and blocks of its own, and one queue, from which
requests go to ranks as in ``ranks_of_schedulers``. They decide at the same instants and their steps end together. No
rank steps while one that has a request to run runs none; on the decode client those without KV are none to run.
"""

from __future__ import annotations

from collections.abc import Sequence

from oracles.lone_link import LoneLink
from oracles.ranks_of_schedulers import TensorRTRanks
from oracles.tensorrt_llm_scheduler import Oracle, Planned, Request, Settings


class PrefillSide(Oracle):
    """The prefill client; ``complete`` gets its complete prompts that somebody awaits, with the instants."""

    def __init__(self, settings: Settings, alone: list[Request], complete: list[tuple[int, Request]]) -> None:
        super().__init__(settings, [])
        self.alone = alone
        self.complete = complete
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

    def choose(self) -> tuple[list[Request], list[tuple[Request, int]]]:
        settings = self.settings
        self.granted = []
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
        return decoding[: settings.budget], []

    def take_step(self, decodes: list[Request], prompts: list[tuple[Request, int]]) -> Planned | None:
        for one in decodes:
            if one.written == 0:
                one.written, one.first = 1, self.now
        return super().take_step(decodes, prompts)

    def must_run(self) -> bool:
        return any(one.generating for one in self.active)


class Server:
    """The ranks of a client with one clock in nanoseconds, and the requests that they share."""

    def __init__(self, ranks: Sequence[Oracle]) -> None:
        self.ranks = ranks
        self.shared = TensorRTRanks(ranks[0].settings, [], len(ranks))
        self.shared.ranks = list(ranks)
        self.plan_at: int | None = None
        self.before: list[Planned | None] = []
        self.last_plan = self.end = 0
        self.steps = 0

    @property
    def queue(self) -> list[Request]:
        return self.shared.queue if len(self.ranks) > 1 else self.ranks[0].queue

    def wake(self, now: int) -> None:
        if self.plan_at is None:
            self.plan_at = max(now, self.end, self.last_plan)

    def decide(self) -> None:
        now = self.plan_at
        assert now is not None
        self.last_plan = now
        for rank in self.ranks:
            if isinstance(rank, DecodeSide):
                rank.now = now
        steps = self.shared.decide() if len(self.ranks) > 1 else [self.ranks[0].decide()]
        ended_at, ended = self.end, self.before
        if any(steps):
            start = self.end if any(self.before) else now
            self.end = start + max(self.lasts(step) for step in steps if step is not None)
            self.steps += 1
        overlap = self.ranks[0].settings.overlap
        if overlap:
            self.before = steps
        else:
            ended_at, ended = self.end, steps
        for step in steps:
            if step is not None:
                step.end = self.end
        if any(ended):
            self.plan_at = ended_at
            for rank, step in zip(self.ranks, ended, strict=True):
                if step is not None:
                    rank.deliver(step)
        elif not any(steps):
            self.plan_at = None
        for step in self.before:
            if step is not None:
                for request, _, _, _ in step.prompts:
                    request.coming = True
                for request, _ in step.decodes:
                    request.coming = True

    def lasts(self, step: Planned) -> int:
        settings = self.ranks[0].settings
        prompts = sum(tokens for _, tokens, _, _ in step.prompts)
        past = step.context + sum(context for _, _, context, _ in step.prompts)
        return settings.fixed + settings.each * (len(step.decodes) + prompts) + settings.past * past


class Pair:
    """Both clients and the link; each request is (that of the decode client, that of the prefill client)."""

    def __init__(
        self,
        prefill: Settings,
        decode: Settings,
        link: tuple[int, int, int],
        requests: list[tuple[Request, Request]],
        ranks: tuple[int, int] = (1, 1),
    ) -> None:
        """``link`` has the bytes per ns, the latency in ns and the bytes of a token's KV."""
        bytes_per_ns, self.latency, self.token = link
        self.link = LoneLink(bytes_per_ns)
        self.requests = requests
        alone = [own for asked, own in requests if asked.output == 1]
        self.complete: list[tuple[int, Request]] = []
        self.prefill = [PrefillSide(prefill, alone, self.complete) for _ in range(ranks[0])]
        self.decode = [DecodeSide(decode) for _ in range(ranks[1])]
        self.servers = (Server(self.prefill), Server(self.decode))
        self.arriving = sorted([own for _, own in requests], key=lambda one: one.arrival)
        self.pushed_back = 0  # requests that had no memory on the decode client as they came

    def run(self) -> None:
        prefill, decode = self.servers
        while (now := self.next_instant()) is not None:
            while self.complete and self.complete[0][0] == now:
                computing = self.complete.pop(0)[1]
                decode.queue.append(next(asked for asked, own in self.requests if own is computing))
                decode.wake(now)
            while self.link.next_ns() == now:
                for asked, computing in self.link.run(now):
                    next(rank for rank in self.prefill if computing in rank.held).let_go(computing)
                    prefill.wake(now)
                    next(rank for rank in self.decode if asked in rank.coming).coming.remove(asked)
                    asked.generating = True
                    decode.wake(now)
            while self.arriving and self.arriving[0].arrival == now:
                prefill.queue.append(self.arriving.pop(0))
                prefill.wake(now)
            while now in (prefill.plan_at, decode.plan_at):
                while prefill.plan_at == now:
                    prefill.decide()
                if decode.plan_at == now:
                    self.decide(now)

    def decide(self, now: int) -> None:
        """Let the decode client decide all that it decides now; the KV of those with memory then sets out."""
        granted = []
        while self.servers[1].plan_at == now:
            self.servers[1].decide()
            granted += [one for rank in self.decode for one in rank.granted]
        waiting = [one for rank in self.decode for one in rank.active if not one.begun]
        self.pushed_back += len(waiting) + len(self.servers[1].queue)
        for asked in granted:
            pair = next(pair for pair in self.requests if pair[0] is asked)
            self.link.send(asked.prompt * self.token, pair, now, self.latency)

    def next_instant(self) -> int | None:
        instants = [at for at, _ in self.complete[:1]] + [one.arrival for one in self.arriving[:1]]
        instants += [server.plan_at for server in self.servers if server.plan_at is not None]
        instants += [at for at in [self.link.next_ns()] if at is not None]
        return min(instants, default=None)
