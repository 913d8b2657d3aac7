"""Reconstructs what held back the sequences of one LLM client: seats, KV memory, or the work of others.

The recording has the start and the end of every task and every step. From these follow, at every instant, the number
of sequences on the client and the KV that they hold. A task that waits while all seats are taken waits for a seat;
one whose prompt finds no room in the KV memory waits for that; any other one waits for the steps that are full of
other prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.same_bits import total
from hermes_flow.program.units import PS_PER_NS, Ints
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord

Floats = NDArray[np.float64]

_START, _END, _STEPS, _DECODES, _CONTEXT, _PREFILL = (STEP_FIELDS.index(name) for name in STEP_FIELDS[:6])
_NEARLY_FULL = 0.98  # of the KV memory: the rest is cut into blocks


@dataclass(frozen=True, slots=True)
class ClientTasks:
    """All tasks that one LLM client served, in nanoseconds and tokens; one entry per task.

    ``kv_tokens`` are those of a task's own prompt, whose memory it holds from ``held_ns`` on: from its start, or from
    the beginning of the transfer that brings its KV. ``grown`` are the tokens that it adds until its end, and
    ``found`` those of its prompt that the memory held before it.
    """

    ready_ns: Floats
    held_ns: Floats
    start_ns: Floats
    first_ns: Floats
    finish_ns: Floats
    kv_tokens: Floats
    grown: Floats
    found: Floats


@dataclass(frozen=True, slots=True)
class OccupancyFacts:
    """What is kept of a client's timeline: means over a window, and the sequences that its KV memory holds.

    ``running`` is the mean number of sequences, and ``kv_share`` the mean share of the KV memory in use.
    ``while_full`` is the mean number of sequences while KV memory held others back, None where it never did.
    ``shared`` is the share of the KV of all sequences that the memory holds, as it holds shared prompts once.
    """

    running: float
    kv_share: float
    while_full: float | None
    shared: float


class Occupancy:
    """The sequences and the KV of one client over time, and how long each cause blocked it."""

    def __init__(self, tasks: ClientTasks, spec: LLMClientSpec, record: ClientRecord) -> None:
        at_once = np.array_equal(tasks.held_ns, tasks.start_ns)  # no KV comes over a network
        instants = (tasks.ready_ns, tasks.start_ns, tasks.first_ns, tasks.finish_ns)
        times, places = _places(instants if at_once else (*instants, tasks.held_ns))
        middles = 0.5 * (times[:-1] + times[1:])
        starts, firsts, ends = (
            _Instants(at, place, len(times)) for at, place in zip(instants[1:], places[1:4], strict=True)
        )
        helds = starts if at_once else _Instants(tasks.held_ns, places[4], len(times))
        self.times, self.lengths = times, np.diff(times)
        self.running = starts.passed - ends.passed
        held = _held_tokens(tasks, middles, helds, firsts, ends)
        self._coming = np.zeros(len(held)) if at_once else _coming(tasks, held, helds, starts)
        room = float(spec.kv_blocks * spec.block_size)
        self.shared = 1.0
        if tasks.found.any():  # shared prompts are held once; else more than the peak are sequences put aside
            self.shared = min(1.0, record.kv_peak_blocks * spec.block_size / float(held.max(initial=1.0)))
        self.kv_share = held * self.shared / room
        need = np.append(tasks.kv_tokens[helds.order], 0.0).take(helds.passed) * self.shared
        seats = self.running >= spec.seats
        memory = ~seats & (self.kv_share + need / room > _NEARLY_FULL) & (helds.passed < len(helds.order))
        self.memory_blocked = memory
        self._seats = seats

    def waits_ns(self, begin_ns: Floats, end_ns: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return how long each wait was for a seat, for KV memory, for transfers, and for steps full of prompts.

        Memory that waits for KV on its way is lost to the network; the rest of it is held by sequences that run.
        """
        seats = self._between(self._cumulated(self._seats), begin_ns, end_ns)
        blocked = self._between(self._cumulated(self.memory_blocked), begin_ns, end_ns)
        moving = self._between(self._cumulated(self.memory_blocked * self._coming), begin_ns, end_ns)
        rest = np.maximum(end_ns - begin_ns - seats - blocked, 0.0)
        return seats, blocked - moving, moving, rest

    def running_while_full(self) -> float | None:
        """Return the mean number of sequences while KV memory held others back; None where it never did."""
        weights = self.lengths * self.memory_blocked
        whole = total(weights)
        return total(weights * self.running) / whole if whole > 0 else None

    def means(self, begin_ns: float, end_ns: float) -> tuple[float, float]:
        """Return the mean number of sequences and the mean share of the KV memory in use over a window."""
        window = max(end_ns - begin_ns, 1.0)
        clipped = np.diff(np.clip(self.times, begin_ns, end_ns))
        return (
            total(clipped * self.running) / window,
            total(clipped * np.clip(self.kv_share, 0.0, 1.0)) / window,
        )

    def facts(self, begin_ns: float, end_ns: float) -> OccupancyFacts:
        """Return what is kept of the timeline, with the means over a window."""
        return OccupancyFacts(*self.means(begin_ns, end_ns), self.running_while_full(), self.shared)

    def _cumulated(self, mask: NDArray[Any]) -> Floats:
        return np.concatenate(([0.0], np.cumsum(self.lengths * mask)))

    def _between(self, cumulated: Floats, begin_ns: Floats, end_ns: Floats) -> Floats:
        if not len(self.times):
            return np.zeros_like(begin_ns)
        between: Floats = np.interp(end_ns, self.times, cumulated) - np.interp(
            begin_ns, self.times, cumulated
        )
        return between


class DecodeTime:
    """The time of a client's steps over time, by what it goes to, as a sequence that decodes sees it."""

    def __init__(self, record: ClientRecord, spec: LLMClientSpec) -> None:
        rows = record.segments
        assert rows is not None
        rows = rows[rows[:, _STEPS] > 0]
        lanes = max(1, len(record.lane_rows))
        rows = rows[np.argsort(rows[:, _END], kind="stable")]
        steps, decodes, context = (
            rows[:, field].astype(np.float64) for field in (_STEPS, _DECODES, _CONTEXT)
        )
        length = (rows[:, _END] - rows[:, _START]) / float(PS_PER_NS)
        own, alone = _decode_times_ns(spec, rows[:, _DECODES], context + decodes * (steps - 1) / 2)
        mixed = rows[:, _PREFILL] > 0
        pure = np.where(mixed, np.minimum(own * steps, length), length)
        pure = np.where(decodes > 0, pure, 0.0)
        by_itself = pure * np.divide(alone, own, out=np.ones_like(own), where=own > 0)
        self._ends_ns = np.maximum.accumulate(rows[:, _END] / float(PS_PER_NS))
        parts = (by_itself, pure - by_itself, length - pure, steps)
        self._sums = [np.concatenate(([0.0], np.cumsum(part / lanes))) for part in parts]

    def parts_ns(self, first_ns: Floats, finish_ns: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Return for each decode its time by itself, by the rest of its batch, by prefills, and its steps."""
        before, after = (np.searchsorted(self._ends_ns, at, side="right") for at in (first_ns, finish_ns))
        alone, batch, prefills, steps = (sums[after] - sums[before] for sums in self._sums)
        return alone, batch, prefills, steps


class _Instants:
    """Instants of tasks in their order, and how many of them have passed between each two of all ``times``.

    ``places`` has where each instant is among the times, which are sorted, different, and hold every instant.
    """

    __slots__ = ("order", "passed")

    def __init__(self, at_ns: Floats, places: NDArray[np.intp], times: int) -> None:
        self.order = np.argsort(at_ns, kind="stable")
        at_time = np.bincount(places, minlength=times).astype(np.int32)
        self.passed = np.cumsum(at_time, dtype=np.int32, out=at_time)[:-1]

    def stepped(self, values: Floats) -> Floats:
        """Return the sum of the values whose time has passed, between each two times."""
        sums = np.concatenate(([0.0], np.cumsum(values[self.order])))
        found: Floats = sums.take(self.passed)
        return found


def _places(instants: Sequence[Floats]) -> tuple[Floats, list[NDArray[np.intp]]]:
    """Return all different instants in their order, and where each one of every column is among them.

    One sort of them all is cheaper than a search for each.
    """
    every = np.concatenate(instants)
    bits = len(every).bit_length()
    if len(every) and every.min() >= 0 and int(every.max()).bit_length() + bits < 64:
        # Numbers that hold an instant and its place are sorted twice as fast as places by their instants.
        both = np.sort((every.astype(np.int64) << bits) + np.arange(len(every)))
        ordered, order = (both >> bits).astype(np.float64), both & ((1 << bits) - 1)
    else:
        order = np.argsort(every)
        ordered = every[order]
    first = np.ones(len(every), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    places = np.empty(len(every), np.intp)
    places[order] = np.cumsum(first) - 1
    return ordered[first], np.split(places, len(instants))


def _coming(tasks: ClientTasks, held: Floats, helds: _Instants, starts: _Instants) -> Floats:
    """Return the share of the held tokens whose KV is on its way."""
    coming = helds.stepped(tasks.kv_tokens)
    coming -= starts.stepped(tasks.kv_tokens)
    coming /= np.maximum(held, 1.0)
    return np.clip(coming, 0.0, 1.0, out=coming)


def _held_tokens(
    tasks: ClientTasks, at_ns: Floats, helds: _Instants, firsts: _Instants, ends: _Instants
) -> Floats:
    """Return the tokens whose KV the tasks hold at each instant; an answer grows evenly."""
    rate = tasks.grown / np.maximum(tasks.finish_ns - tasks.first_ns, 1.0)
    held = helds.stepped(tasks.kv_tokens)
    held -= ends.stepped(tasks.kv_tokens + tasks.grown)
    growing = firsts.stepped(rate)
    growing -= ends.stepped(rate)
    growing *= at_ns
    held += growing
    begun = firsts.stepped(rate * tasks.first_ns)
    begun -= ends.stepped(rate * tasks.first_ns)
    held -= begun
    held += ends.stepped(tasks.grown)
    return np.maximum(held, 0.0, out=held)


def _decode_times_ns(spec: LLMClientSpec, decodes: Ints, context: Floats) -> tuple[Floats, Floats]:
    """Return the time of a step that only decodes, for each batch, and of one sequence of the same length alone."""
    table = np.asarray(spec.cost.decode_ps, dtype=np.float64)
    most = len(table) - 1
    own = table[np.minimum(decodes, most)] + spec.cost.context_ps * context
    each = context / np.maximum(decodes, 1)
    alone = table[min(1, most)] + spec.cost.context_ps * each
    return own / PS_PER_NS, np.minimum(alone, own) / PS_PER_NS
