"""The parts of the time that the tasks of one op take: each wait and each step by its cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.why.causes import Cause
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.held_back import waiting_keys, waits_between_steps
from hermes_flow.metrics.why.llm_model import step_ps
from hermes_flow.metrics.why.llm_timeline import Floats
from hermes_flow.metrics.why.windows import Window
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import OpRecord

Span = tuple[Floats, Floats]  # the begin and the end of each task's time, in nanoseconds
Parts = Iterator[tuple[str, Cause, Floats]]  # stage, cause, nanoseconds by request of the window


@dataclass(frozen=True, slots=True)
class OpTasks:
    """The tasks of one op within a window: ``own`` tells which of its requests have one.

    Where ``until`` is given, the rest of a task's time after that instant is not looked at: others follow earlier.
    """

    op: Op
    record: OpRecord
    window: Window
    own: NDArray[np.bool_]
    until: Ints | None
    clients: Clients

    @property
    def rows(self) -> Ints:
        """The requests of the window."""
        return self.window.rows

    @property
    def client(self) -> Ints:
        """The client of each task, −1 for a request that has none."""
        return np.where(self.own, self.record.client[self.rows], -1)

    @property
    def stages(self) -> tuple[str, str]:
        """The stage that a task begins with and the one that it ends with."""
        op = self.op
        apart = op.comes_apart and self.record.first_ns is not None
        return (op.stages[0], op.stages[1]) if apart else ("+".join(op.stages),) * 2

    @property
    def decodes(self) -> bool:
        """Whether the tasks have steps of decoding whose times are known."""
        op = self.op
        return op.generate is not None and (
            op.kv is not None or (op.comes_apart and self.record.first_ns is not None)
        )

    def span(self, begin: Ints, end: Ints) -> Span:
        """Return what lies within the window of the time from ``begin`` to ``end``."""
        window = self.window
        low = np.clip(begin, window.begin_ns, window.end_ns).astype(np.float64)
        return low, np.maximum(np.clip(end, window.begin_ns, window.end_ns), low)

    def time(self, span: Span) -> Floats:
        """Return the length of a span, 0 for a request without a task."""
        return np.where(self.own, span[1] - span[0], 0.0)

    def by_client(self, span: Span, parts: Callable[[int, Floats, Floats], Sequence[Floats]]) -> list[Floats]:
        """Return what ``parts`` gives for the tasks of each client within a span."""
        return by_client(self.client, span, parts)


def op_parts(tasks: OpTasks) -> Parts:
    """Yield the parts of one op's tasks, by stage and cause, in nanoseconds per request of the window."""
    op, record, rows, clients = tasks.op, tasks.record, tasks.rows, tasks.clients
    ready, start, finish = (column[rows] for column in (record.ready_ns, record.start_ns, record.finish_ns))
    if tasks.until is not None:
        finish = np.minimum(finish, tasks.until)
    transfer = np.zeros_like(ready) if record.transfer_ns is None else record.transfer_ns[rows]
    first_stage, last_stage = tasks.stages
    yield first_stage, "transfer", tasks.time(tasks.span(start - transfer, start))
    spec = clients.spec(op.pool)
    if spec is None or op.llm is None:
        yield first_stage, "queue", tasks.time(tasks.span(ready, start - transfer))
        alone = finish if record.alone_ns is None else np.minimum(start + record.alone_ns[rows], finish)
        yield first_stage, "service", tasks.time(tasks.span(start, alone))
        yield first_stage, "sharing", tasks.time(tasks.span(alone, finish))
        return
    passed = start - transfer
    if record.adapter_wait_ns is not None:
        passed = start - np.minimum(record.adapter_wait_ns[rows], start - ready)
        yield first_stage, "adapters", tasks.time(tasks.span(passed, start))
    yield from _wait_parts(first_stage, tasks, spec, tasks.span(ready, passed))
    first = start
    if op.kv is None:
        first = finish if record.first_ns is None else np.clip(record.first_ns[rows], start, finish)
        yield from _prefill_parts(first_stage, tasks, spec, start, first)
    if tasks.decodes:
        yield from _decode_parts(last_stage, tasks, spec, tasks.span(first, finish))


def _wait_parts(stage: str, tasks: OpTasks, spec: LLMClientSpec, waited: Span) -> Parts:
    """Yield why tasks wait for an LLM client to begin with them."""
    pool, clients = tasks.op.pool, tasks.clients
    waits = tasks.by_client(
        waited, lambda index, low, high: clients.occupancy(pool, index).waits_ns(low, high)
    )
    if waiting_keys(spec):
        waits += tasks.by_client(
            waited, lambda index, low, high: [clients.steps(pool, index).without_prompts_ns(low, high)]
        )
        waits[4] = np.minimum(waits[3], waits[4])
        waits[3] -= waits[4]
    causes: tuple[Cause, ...] = ("seats", "kv_memory", "transfer", "prompts_ahead", "held_back")
    for cause, times in zip(causes, waits, strict=False):
        yield stage, cause, times


def _idle_ns(tasks: OpTasks, spec: LLMClientSpec, span: Span) -> Floats:
    """Return for how long the client lets its tasks wait between steps within a span."""
    pool, clients = tasks.op.pool, tasks.clients
    found: list[Floats] = []
    if waits_between_steps(spec):
        found = tasks.by_client(
            span, lambda index, low, high: [clients.steps(pool, index).idle_ns(low, high)]
        )
    return found[0] if found else np.zeros(len(tasks.rows))


def _prefill_parts(stage: str, tasks: OpTasks, spec: LLMClientSpec, start: Ints, first: Ints) -> Parts:
    """Yield the prefill alone, what sharing its steps with others adds, and the time between steps."""
    op, record, rows = tasks.op, tasks.record, tasks.rows
    assert op.llm is not None
    span = tasks.span(start, first)
    idle = _idle_ns(tasks, spec, span)
    yield stage, "held_back", idle
    cached = np.zeros(len(rows), np.int64) if record.cached_tokens is None else record.cached_tokens[rows]
    alone = np.array(
        [
            prefill_alone_ns(spec.cost, int(prompt), int(found)) if here else 0.0
            for prompt, found, here in zip(op.llm.prompt[rows], np.maximum(cached, 0), tasks.own, strict=True)
        ]
    )
    time = tasks.time(span) - idle
    share = np.minimum(1.0, alone / np.maximum(first - start, 1))
    yield stage, "service", time * share
    yield stage, "prefills", time * (1.0 - share)


def _decode_parts(stage: str, tasks: OpTasks, spec: LLMClientSpec, span: Span) -> Parts:
    """Yield a decode alone, what its batch and the prefills in its steps add, and the time after a preemption."""
    op, record, rows, clients = tasks.op, tasks.record, tasks.rows, tasks.clients
    assert op.generate is not None
    idle = _idle_ns(tasks, spec, span)
    yield stage, "held_back", idle
    parts = tasks.by_client(
        span, lambda index, low, high: clients.decodes(op.pool, index).parts_ns(low, high)
    )
    alone, batch, prefills, steps = parts
    total = tasks.time(span) - idle
    away = np.zeros(len(rows))
    if record.preemptions is not None:
        needed = np.maximum(op.generate.output[rows] - 1.0, 1.0)
        lost = np.clip(1.0 - needed / np.maximum(steps, 1.0), 0.0, 1.0)
        away = np.where(tasks.own & (record.preemptions[rows] > 0), lost, 0.0)
    known = np.maximum(alone + batch + prefills, 1e-9)
    scale = np.where(known > 1e-6, total * (1.0 - away) / known, 0.0)
    yield stage, "kv_memory", total * away
    yield stage, "batch", batch * scale
    yield stage, "prefills", prefills * scale
    yield stage, "service", np.maximum(total * (1.0 - away) - (batch + prefills) * scale, 0.0)


def by_client(
    client: Ints, span: Span, parts: Callable[[int, Floats, Floats], Sequence[Floats]]
) -> list[Floats]:
    """Return what ``parts`` gives for the tasks of each client, zeros where there is no task."""
    low, high = span
    found: list[Floats] = []
    for index in np.unique(client[client >= 0]).tolist():
        here = client == index
        for number, values in enumerate(parts(index, low[here], high[here])):
            if number == len(found):
                found.append(np.zeros(len(client)))
            found[number][here] = values
    return found


def prefill_alone_ns(cost: StepCost, prompt: int, cached: int) -> float:
    """Return the time of the prefill of a prompt on an idle client, in the largest chunks that its steps may have."""
    most, total, done = max(1, len(cost.tokens_ps) - 1), 0.0, min(cached, prompt - 1)
    while done < prompt:
        chunk = min(most, prompt - done)
        total += step_ps(cost, chunk, done, 0, 0)
        done += chunk
    return total / PS_PER_NS
