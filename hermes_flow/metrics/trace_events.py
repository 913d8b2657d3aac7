"""Writes a run as Chrome trace events, for Perfetto and chrome://tracing.

A process is a pool and a thread one of its clients (on sequential clients, one of its cores; on batched ones, a
place in their passes; with pipeline parallelism, one of its micro-batches). Stretches of LLM steps, and tasks of
others, are slices on those threads; a counter per LLM thread follows its decoding sequences. Requests are
asynchronous spans with their stages inside, in a process of their own.

Format: "Trace Event Format", the JSON object form; timestamps are microseconds with three decimals.
"""

from __future__ import annotations

import gzip
import heapq
import io
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from hermes_flow.metrics.files import replace_file
from hermes_flow.metrics.spans import StageSpans, stage_spans
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord, Recording

_REQUESTS = 1  # the process of the requests; the pools follow
_ROWS_AT_ONCE = 10_000
_COMPRESSION = 3
_STEPS, _DECODES, _JOINED = (STEP_FIELDS.index(field) for field in ("steps", "decodes", "joined"))


def write_trace_events(recording: Recording, path: str | Path) -> Path:
    """Write the run as gzipped trace events and return the path; equal runs give equal bytes.

    Memory is bounded by the recording itself, whatever the number of events. Raises HermesFlowError naming
    the path if it cannot be written.
    """

    return replace_file(Path(path), lambda file: _pack(recording, file))


def packed_trace(recording: Recording) -> bytes:
    """Return what ``write_trace_events`` writes, in memory."""
    packed = io.BytesIO()
    _pack(recording, packed)
    return packed.getvalue()


def _pack(recording: Recording, file: IO[bytes]) -> None:
    with gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as packed:
        packed.write(b'{"displayTimeUnit":"ms","traceEvents":[\n')
        events = trace_events(recording)
        packed.write(next(events).encode())
        while lines := list(islice(events, _ROWS_AT_ONCE)):
            packed.write(("".join(f",\n{line}" for line in lines)).encode())
        packed.write(b"\n]}\n")


def trace_events(recording: Recording) -> Iterator[str]:
    """Yield the run's trace events as JSON objects, by thread and by request; in time order within each."""
    program, spans = recording.program, stage_spans(recording)
    yield _metadata("process_name", _REQUESTS, 0, "requests")
    for index, pool in enumerate(program.pools):
        yield _metadata("process_name", _pid(index), 0, pool.name)
    for client in recording.clients:
        pool = program.pools[client.pool]
        name = f"{pool.name}/{client.client}"
        if client.segments is not None:
            lanes = client.lanes()
            for lane, rows in enumerate(lanes):
                title = name if len(lanes) == 1 else f"{name} micro-batch {lane}"
                yield from _steps(rows, title, _pid(client.pool), client.client * len(lanes) + lane + 1)
        else:
            width = max(
                other.seats or other.capacity for other in recording.clients if other.pool == client.pool
            )
            yield from _tasks(
                client, name, width, client.seat, [span for span in spans if span.pool == client.pool]
            )
    yield from _requests(recording, spans)


def _pid(pool: int) -> int:
    return _REQUESTS + 1 + pool


def _metadata(kind: str, pid: int, tid: int, name: str) -> str:
    return f'{{"ph":"M","pid":{pid},"tid":{tid},"name":"{kind}","args":{{"name":{json.dumps(name)}}}}}'


def _us(ns: int) -> str:
    return f"{ns // 1000}.{ns % 1000:03d}"


def _steps(segments: NDArray[np.int64], name: str, pid: int, tid: int) -> Iterator[str]:
    """Yield stretches of an LLM client's steps as slices, and the number of its decoding sequences."""
    where = f'"pid":{pid},"tid":{tid}'
    counter = f'"ph":"C",{where},"name":{json.dumps(f"{name} decodes")}'
    yield _metadata("thread_name", pid, tid, name)
    last_decodes, last_end = 0, -1
    for start_ps, end_ps, steps, decodes, context, prefill, joined in _stretches(segments):
        start, end = start_ps // PS_PER_NS, end_ps // PS_PER_NS
        if start > last_end and last_decodes:
            yield f'{{{counter},"ts":{_us(last_end)},"args":{{"sequences":0}}}}'
            last_decodes = 0
        if decodes != last_decodes:
            yield f'{{{counter},"ts":{_us(start)},"args":{{"sequences":{decodes}}}}}'
        kind = "decode" if not prefill else "prefill + decode" if decodes else "prefill"
        yield (
            f'{{"ph":"X",{where},"ts":{_us(start)},"dur":{_us(end - start)},"name":"{kind}","args":{{'
            f'"steps":{steps},"decodes":{decodes},"decode_context":{context},'
            f'"prefill_tokens":{prefill},"joined":{joined}}}}}'
        )
        last_decodes, last_end = decodes, end
    if last_decodes:
        yield f'{{{counter},"ts":{_us(last_end)},"args":{{"sequences":0}}}}'


def _stretches(segments: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the rows that take time; those who joined in a speculative step joined with its last token."""
    stretch: list[int] = []
    for row in _rows(segments):
        if row[_STEPS]:
            if stretch:
                yield stretch
            stretch = row
        elif row[_DECODES]:
            stretch[_JOINED] += row[_JOINED]
    if stretch:
        yield stretch


def _rows(table: NDArray[np.int64]) -> Iterator[list[int]]:
    """Yield the table's rows as lists of plain integers, converted a block at a time."""
    for first in range(0, len(table), _ROWS_AT_ONCE):
        yield from table[first : first + _ROWS_AT_ONCE].tolist()


def _tasks(client: ClientRecord, name: str, width: int, word: str, spans: list[StageSpans]) -> Iterator[str]:
    """Yield a client's tasks as slices, each on the lowest core (or place in a pass) free as it starts."""
    pid, first_tid = _pid(client.pool), client.client * width + 1
    tables = []
    for index, span in enumerate(spans):
        own = np.flatnonzero((span.client == client.client) & (span.start_ns >= 0) & (span.finish_ns >= 0))
        stage = np.full(len(own), index)
        tables.append(np.column_stack((span.start_ns[own], span.finish_ns[own], own, stage)))
    tasks = np.concatenate(tables) if tables else np.zeros((0, 4), np.int64)
    tasks = tasks[np.lexsort((tasks[:, 3], tasks[:, 2], tasks[:, 0]))]
    titles = [json.dumps(span.stage) for span in spans]
    busy: list[tuple[int, int]] = []  # (free from, core)
    free: list[int] = []
    cores = 0
    for start, finish, request, which in _rows(tasks):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if not free:
            title = f"{name} {word} {cores}" if width > 1 else name
            yield _metadata("thread_name", pid, first_tid + cores, title)
            free.append(cores)
            cores += 1
        core = heapq.heappop(free)
        heapq.heappush(busy, (finish, core))
        yield (
            f'{{"ph":"X","pid":{pid},"tid":{first_tid + core},"ts":{_us(start)},'
            f'"dur":{_us(finish - start)},"name":{titles[which]},"args":{{"request":{request}}}}}'
        )


def _requests(recording: Recording, spans: list[StageSpans]) -> Iterator[str]:
    """Yield each request as a span with its stages, transfers and waiting, inside; a failed one as an instant."""
    requests = recording.program.requests
    columns: list[NDArray[np.int64]] = [
        recording.status.astype(np.int64), recording.arrival_ns, recording.finish_ns,
        requests.input_tokens, requests.output_tokens,
    ]  # fmt: skip
    for span in spans:
        moved = np.zeros_like(span.ready_ns) if span.transfer_ns is None else span.transfer_ns
        columns += [span.ready_ns, span.ready_ns + moved, span.start_ns, span.finish_ns]
    titles = [[json.dumps(f"{span.stage}{part}") for part in (" transfer", " queue", "")] for span in spans]
    request = 0
    for first in range(0, len(requests), _ROWS_AT_ONCE):
        block = np.column_stack([column[first : first + _ROWS_AT_ONCE] for column in columns])
        for row in block.tolist():
            status, arrival, finish, prompt, output = row[:5]
            if status:
                yield _failure(request, arrival, recording.failures.get(request, "failed"))
            else:
                sizes = f'{{"input_tokens":{prompt},"output_tokens":{output}}}'
                yield _edge("b", str(request), arrival, f'"request {request}"', sizes)
                yield from _stages(request, row[5:], titles)
                yield _edge("e", str(request), finish, f'"request {request}"')
            request += 1


def _stages(request: int, times: list[int], titles: list[list[str]]) -> Iterator[str]:
    """Yield a request's stages; those that overlap get a track (an id) of their own."""
    tasks = zip(times[::4], times[1::4], times[2::4], times[3::4], titles, strict=True)
    tracks: list[int] = []  # the end of the last stage on each
    for ready, moved, start, finish, (transfer, queue, title) in sorted(
        task for task in tasks if task[3] >= 0
    ):
        track = next((index for index, end in enumerate(tracks) if end <= ready), len(tracks))
        tracks[track : track + 1] = [finish]
        name = f"{request}.{track}" if track else str(request)
        for begin, end, waiting in ((ready, moved, transfer), (moved, start, queue)):
            if end > begin:
                yield _edge("b", name, begin, waiting)
                yield _edge("e", name, end, waiting)
        yield _edge("b", name, start, title)
        yield _edge("e", name, finish, title)


def _edge(phase: str, name: str, ns: int, title: str, arguments: str = "{}") -> str:
    return (
        f'{{"ph":"{phase}","cat":"request","id":"{name}","pid":{_REQUESTS},"tid":1,"ts":{_us(ns)},'
        f'"name":{title},"args":{arguments}}}'
    )


def _failure(request: int, arrival_ns: int, reason: str) -> str:
    arguments = json.dumps({"reason": reason})
    return _edge("n", str(request), max(arrival_ns, 0), f'"request {request} failed"', arguments)
