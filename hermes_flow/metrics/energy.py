"""Divides the energy of a run among clients, requests and stages.

A client's energy is that while idle, which belongs to no task, and that of its work, which its tasks share without a
remainder. On an LLM client all is worked out from the record of its steps, after the run:

- what a step draws for its time and for all its tokens is shared by its tokens;
- of that, the prefills' part is shared by the prompt tokens that were computed, over the whole run, and so are the
  products of attention by the query-key pairs of each prompt;
- the decodes' part of a step is shared equally by the sequences that decode in it, but what reading the KV takes by
  their contexts.

Where sequences were preempted, or several micro-batches are under way, who decoded in which step is not recorded:
the shares then follow what is known of each, and still add up.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.client_rows import ClientRows
from hermes_flow.metrics.lost_work import share_lost_work
from hermes_flow.metrics.rows import forget
from hermes_flow.program.ops import Op
from hermes_flow.program.pools import Pool
from hermes_flow.program.power import BusyPower, StepEnergy
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import known_total, total
from hermes_flow.program.units import NS_PER_S, PS_PER_NS
from hermes_flow.recording.client_states import POWERED, stretches
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, OpRecord, Recording
from hermes_flow.recording.stopped_clients import until

Floats = NDArray[np.float64]
Stretches = list[tuple[int, int]]
Rows = NDArray[np.intp]

_ELSEWHERE = "endpoint"  # a model on the accelerators of a provider
_START, _END, _STEPS, _DECODES, _CONTEXT, _PREFILL = range(len(STEP_FIELDS) - 1)


@dataclass(frozen=True, slots=True)
class Energies:
    """The energy of a run in joules; NaN where it is unknown or no work was done.

    ``idle_j`` and ``work_j`` have an entry per client, in the order of the recording; ``stages_j`` a column per
    stage, in the order of ``stage_spans``, with an entry per request. ``unknown`` are the requests that were served
    by accelerators of unknown power. ``prompt_token_j`` and ``answer_token_j`` are the mean of a token that LLM
    clients compute of a prompt, and that they generate.
    """

    idle_j: Floats
    work_j: Floats
    stages_j: tuple[Floats, ...]
    unknown: NDArray[np.bool_]
    prompt_token_j: float = float("nan")
    answer_token_j: float = float("nan")

    @property
    def clients_j(self) -> Floats:
        """The total energy of each client."""
        return self.idle_j + self.work_j

    def requests_j(self, requests: int) -> Floats:
        """Return the energy of each request; hosts and stores of unknown power count as 0."""
        total, known = np.zeros(requests), np.zeros(requests, dtype=np.bool_)
        for column in self.stages_j:
            here = ~np.isnan(column)
            if here.all():
                total += column
            else:
                total[here] += column[here]
            known |= here
        total[self.unknown | ~known] = np.nan
        return total


def energies(recording: Recording) -> Energies:
    """Return the joules of every client, and every request's share in them by stage."""
    program, count = recording.program, len(recording.program.requests)
    columns = [
        [
            _nothing(count, program.pools[op.pool].energy is not None)
            for _ in range(2 if _comes_apart(op, record) else 1)
        ]
        for op, record in zip(program.ops, recording.ops, strict=True)
    ]
    idle_j, work_j = (np.full(len(recording.clients), np.nan) for _ in range(2))
    phases = _Phases()
    tables: dict[int, _Tables] = {}
    lost: list[int] = []  # clients whose work was that of tasks which are others' now
    rows = ClientRows(recording)
    for number, client in enumerate(recording.clients):
        pool = program.pools[client.pool]
        tasks = [
            _Tasks(op, record, _worked(record, rows.of(index, client.client)), own)
            for index, (op, record, own) in enumerate(zip(program.ops, recording.ops, columns, strict=True))
            if op.pool == client.pool
        ]
        powered = stretches(client.states, recording.end_ns, POWERED)
        ran = until(client, recording.end_ns)
        if isinstance(pool.energy, StepEnergy):
            if client.pool not in tables:
                tables[client.pool] = _Tables(pool.energy)
            own_tables = tables[client.pool]
            idle_j[number], work_j[number] = _llm_client(ran, pool.energy, own_tables, tasks, powered, phases)
        elif isinstance(pool.energy, BusyPower):
            idle_j[number], work_j[number] = _busy_client(ran, pool.energy, tasks, powered)
        if work_j[number] > 0.0 and not any(len(own.rows) for own in tasks):
            lost.append(number)
        forget(recording)
    for number in lost:
        pool_of = recording.clients[number].pool
        own_columns = [
            each for op, own in zip(program.ops, columns, strict=True) for each in own if op.pool == pool_of
        ]
        if not share_lost_work(own_columns, work_j[number]):  # nobody is left who could have it
            idle_j[number], work_j[number] = idle_j[number] + work_j[number], 0.0
    unknown = np.zeros(count, dtype=np.bool_)
    for op, record in zip(program.ops, recording.ops, strict=True):
        if _unmetered(program.pools[op.pool]):
            unknown |= record.client >= 0
    stages = tuple(column for own in columns for column in own)
    return Energies(idle_j, work_j, stages, unknown, *phases.mean_j())


def _nothing(count: int, to_fill: bool) -> Floats:
    """Return a column of NaN, which takes no memory where nothing will be written into it."""
    return np.full(count, np.nan) if to_fill else np.broadcast_to(np.nan, (count,))


def energies_of(energy: Energies, first: int, last: int) -> Energies:
    """Return the energies of the requests ``first`` … ``last − 1``; those of the clients stay."""
    return replace(
        energy,
        stages_j=tuple(column[first:last] for column in energy.stages_j),
        unknown=energy.unknown[first:last],
    )


def energy_summary(recording: Recording, energy: Energies, output_tokens: int) -> dict[str, Any]:
    """Return the energy of the run and its clients, per output token, and while idle.

    Pools of hosts and stores whose power is not known count as nothing, and are listed as ``unmetered``. One with
    accelerators, an endpoint, or no known power at all, leaves the energy unknown.
    """
    pools = recording.program.pools
    unmetered = [pool.name for pool in pools if pool.energy is None]
    unknown = len(unmetered) == len(pools) or any(_unmetered(pool) for pool in pools)
    whole_j = None if unknown else known_total(energy.clients_j)
    return {
        "total_j": whole_j,
        "j_per_output_token": whole_j / output_tokens if whole_j is not None and output_tokens else None,
        "idle_j": None if unknown else known_total(energy.idle_j),
        "unmetered": unmetered,
    }


def _unmetered(pool: Pool) -> bool:
    """Whether a pool has accelerators of unknown power: without them a sum would say nothing."""
    return pool.energy is None and (pool.client.devices > 0 or pool.client.kind == _ELSEWHERE)


def _comes_apart(op: Op, record: OpRecord) -> bool:
    """Whether an op is a prefill and a decode (as in ``stage_spans``)."""
    return op.comes_apart and record.first_ns is not None


def _worked(record: OpRecord, rows: Rows) -> Rows:
    """Return the rows whose tasks were served, to their ends or until they were taken back."""
    served = record.finish_ns[rows] >= 0
    if record.cut_ns is not None:
        served |= record.cut_ns[rows] >= 0
    return rows if served.all() else rows[served]


@dataclass(frozen=True, slots=True)
class _Tasks:
    """One op's tasks on one client, ``rows`` of the requests; their joules go to the op's ``columns``, by stage."""

    op: Op
    record: OpRecord
    rows: Rows
    columns: list[Floats]

    def of(self, values: NDArray[np.int64] | None) -> Floats:
        """Their entries of a column of the op; zeros where there is none."""
        if values is None:
            return np.zeros(len(self.rows))
        return values[self.rows].astype(np.float64)

    @property
    def prompt(self) -> Floats:
        """The tokens of their prompts that were computed or found."""
        assert self.op.llm is not None
        return self._done(self.of(self.op.llm.prompt), self.record.cut_prompt)

    @property
    def output(self) -> Floats:
        """The tokens of their answers that were generated."""
        assert self.op.llm is not None
        return self._done(self.of(self.op.llm.output), self.record.cut_answer)

    @property
    def finish_ns(self) -> NDArray[np.int64]:
        """When the work on each was over."""
        finish, cut = self.record.finish_ns[self.rows], self.record.cut_ns
        return finish if cut is None else np.where(cut[self.rows] >= 0, cut[self.rows], finish)

    @property
    def first_ns(self) -> NDArray[np.int64]:
        """When each began to decode; those that never did, when the work on them was over."""
        first = self.record.first_ns if self.op.kv is None else self.record.start_ns
        assert first is not None
        own = first[self.rows]
        return own if self.record.cut_ns is None else np.where(own < 0, self.finish_ns, own)

    def _done(self, whole: Floats, cut: NDArray[np.int64] | None) -> Floats:
        if cut is None or self.record.cut_ns is None:
            return whole
        return np.where(self.record.cut_ns[self.rows] >= 0, cut[self.rows].astype(np.float64), whole)


def _busy_client(
    client: ClientRecord, power: BusyPower, tasks: list[_Tasks], powered: Stretches
) -> tuple[float, float]:
    """Share what a busy client draws above its rest by service time; tasks of one pass have equal parts of it."""
    idle_j = power.idle_w * _length(powered) / NS_PER_S
    work_j = (power.busy_w - power.idle_w) * client.busy_ns / client.capacity / NS_PER_S
    shares = []
    for own in tasks:
        start, finish = own.record.start_ns[own.rows], own.finish_ns
        share = (finish - start).astype(np.float64)
        if power.by_pass:
            _, which, size = np.unique(start, return_inverse=True, return_counts=True)
            share /= size[which]
        shares.append(share)
    for own, joules in zip(tasks, _shared(work_j, shares), strict=True):
        own.columns[0][own.rows] = joules
    return idle_j, work_j


class _Phases:
    """The joules and the tokens of prompts that LLM clients compute, and of answers that they generate."""

    def __init__(self) -> None:
        self.joules = [0.0, 0.0]
        self.tokens = [0, 0]

    def mean_j(self) -> tuple[float, float]:
        """Return the mean joules of a token of each; NaN where there is none."""
        prompt, answer = (
            joules / tokens if tokens else float("nan")
            for joules, tokens in zip(self.joules, self.tokens, strict=True)
        )
        return prompt, answer


def _llm_client(
    client: ClientRecord,
    energy: StepEnergy,
    tables: _Tables,
    tasks: list[_Tasks],
    powered: Stretches,
    phases: _Phases,
) -> tuple[float, float]:
    """Share what an LLM client's steps took; return its joules while idle, and of its work."""
    steps = _Steps(client, energy, tables)
    busy_s = client.busy_ns / NS_PER_S
    standby_s = _standby_s(client, energy.standby_s, powered) if energy.standby_s else 0.0
    rest_s = max(0.0, _length(powered) / NS_PER_S - busy_s - standby_s)
    idle_j = energy.idle_w * rest_s + energy.active_w * standby_s

    computed, pairs, contexts, decoded = [], [], [], []
    for own in tasks:
        kv, prompt, output = own.op.kv, own.prompt, own.output
        again = own.of(own.record.preemptions) * prompt
        if kv is None:
            cached = own.of(own.record.cached_tokens)
            computed.append(np.maximum(prompt - cached, 0.0))
            pairs.append(np.maximum(0.5 * (prompt**2 - cached**2), 0.0))
        else:
            last = 1.0 if kv.emits_first else 0.0  # the prompt's last token is computed here
            computed.append(again + last)
            pairs.append((again + last) * prompt)
        gained = np.maximum(output - 1.0, 0.0)
        contexts.append(gained * (prompt + 0.5 * (gained - 1.0)))
        decoded.append(steps.of_a_decode(own.first_ns, own.finish_ns))
    prefill = _sums(_shared(steps.prefill_j, computed), _shared(energy.pair_j * client.prefill_pairs, pairs))
    decode = _sums(_shared(steps.decode_j, decoded), _shared(energy.context_j * steps.context, contexts))
    for own, before, after in zip(tasks, prefill, decode, strict=True):
        parts = (before, after) if len(own.columns) == 2 else (before + after,)
        for column, joules in zip(own.columns, parts, strict=True):
            column[own.rows] = joules
    work_j = steps.prefill_j + steps.decode_j
    phases.joules[0] += steps.prefill_j + energy.pair_j * client.prefill_pairs
    phases.joules[1] += steps.decode_j + energy.context_j * steps.context
    phases.tokens[0] += steps.prefill_tokens
    phases.tokens[1] += steps.decode_tokens
    return idle_j, work_j + energy.pair_j * client.prefill_pairs + energy.context_j * steps.context


class _Tables:
    """The tables of a ``StepEnergy`` as arrays."""

    def __init__(self, energy: StepEnergy) -> None:
        self.tokens_j, self.decodes_j = np.asarray(energy.tokens_j), np.asarray(energy.decodes_j)


class _Steps:
    """The joules of a client's steps, without attention's: of prefills and decodes, and of each decoding sequence."""

    def __init__(self, client: ClientRecord, energy: StepEnergy, tables: _Tables) -> None:
        rows = client.segments
        assert rows is not None
        working = rows[:, _STEPS] > 0
        # Columns of their own are read several times faster than those of a table of rows.
        start, end, steps, decodes, context, prefill = (rows[:, field][working] for field in range(6))
        if client.lane_rows:
            order = np.argsort(end, kind="stable")
            start, end, steps, decodes, context, prefill = (
                column[order] for column in (start, end, steps, decodes, context, prefill)
            )
        tokens = decodes * energy.tokens_per_decode + prefill
        seconds = (end - start) / (NS_PER_S * PS_PER_NS)
        if client.lane_rows and seconds.any():
            seconds *= client.busy_ns / NS_PER_S / total(seconds)  # micro-batches overlap
        shared = energy.active_w * seconds + steps * tables.tokens_j.take(tokens)
        each = shared / np.maximum(tokens, 1)
        prefills = each * prefill
        decode_j = each * (tokens - prefill) + steps * tables.decodes_j.take(decodes)
        self.prefill_j = total(prefills) + energy.chunk_token_j * int(prefill.sum())
        self.decode_j = total(decode_j)
        self.prefill_tokens, self.decode_tokens = int(prefill.sum()), int((steps * decodes).sum())
        grown = decodes * (steps * (steps - 1) // 2)
        self.context = int(((steps * context + grown) * (decodes > 0)).sum())
        self._ends_ns = end // PS_PER_NS
        self._each_j = np.concatenate(([0.0], np.cumsum(decode_j / np.maximum(decodes, 1))))

    def of_a_decode(self, first_ns: NDArray[np.int64], finish_ns: NDArray[np.int64]) -> Floats:
        """Return what sequences take that decode in all steps that end after the first instant, up to the second."""
        before, after = (np.searchsorted(self._ends_ns, at, side="right") for at in (first_ns, finish_ns))
        joules: Floats = self._each_j[after] - self._each_j[before]
        return joules


def _working(client: ClientRecord) -> NDArray[np.int64]:
    """Return the rows of a client's segments in which it works."""
    rows = client.segments
    assert rows is not None
    working = rows[:, _STEPS] > 0
    return rows if working.all() else rows[working]


def _standby_s(client: ClientRecord, longest_s: float, powered: Stretches) -> float:
    """Return for how long a client stood by after its work, at most ``longest_s`` each time, while it had power."""
    rows = _working(client)
    if not len(rows):
        return 0.0
    if client.lane_rows:
        rows = rows[np.argsort(rows[:, _START], kind="stable")]
    standby_s = 0.0
    for begin_ns, end_ns in powered:
        first, last = np.searchsorted(rows[:, _START], (begin_ns * PS_PER_NS, end_ns * PS_PER_NS))
        own = rows[first:last]
        if len(own):
            ends = np.maximum.accumulate(own[:, _END])
            gaps = np.append(own[1:, _START], end_ns * PS_PER_NS) - ends
            standby_s += total(np.clip(gaps / (NS_PER_S * PS_PER_NS), 0.0, longest_s))
    return standby_s


def _length(stretches: Stretches) -> int:
    return sum(end - begin for begin, end in stretches)


def _shared(joules: float, shares: list[Floats]) -> list[Floats]:
    """Share ``joules`` in proportion; equally, where all shares are 0."""
    whole = math.fsum(total(share) for share in shares)
    if whole <= 0.0:
        shares = [np.ones_like(share) for share in shares]
        whole = float(sum(len(share) for share in shares))
    return [share * (joules / whole) if whole else share for share in shares]


def _sums(some: Iterable[Floats], others: Iterable[Floats]) -> list[Floats]:
    return [one + other for one, other in zip(some, others, strict=True)]
