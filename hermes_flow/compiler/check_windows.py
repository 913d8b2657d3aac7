"""Checks whether a program can run in windows of requests (``output.stream_requests``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np

from hermes_flow.config.schema import Output
from hermes_flow.errors import CompileError
from hermes_flow.pools.kind import kind_called
from hermes_flow.program.disk_columns import on_disk
from hermes_flow.program.pools import LLMClientSpec, Pool
from hermes_flow.program.program import WINDOWS_IN_MEMORY, Program
from hermes_flow.routing.policy import routing_policies

KEY = "output.stream_requests"
# What the tasks of a window are made of; a request with more columns than these keeps its place in memory.
_REQUEST_COLUMNS = frozenset({"arrival_ns", "input_tokens", "output_tokens"})
_WORK_COLUMNS = frozenset({"prompt", "output", "service_ns", "tokens"})
_WORDS = {
    "session": "sessions",
    "prefixes": "prompts with known contents",
    "priority": "priorities",
    "output_limit": "limits of single answers",
    "pipeline": "several pipelines",
    "traffic": "traffic classes",
    "tenant": "tenants",
    "images": "images",
    "image_ids": "names of images",
    "adapter": "LoRA adapters",
    "site": "sites of users",
    "stages": "sizes of single stages",
}
# These policies choose by the load of clients, and not by the number or the session of a request.
_ROUTING = (
    *("round_robin", "random", "power_of_two", "least_requests", "least_tokens", "least_input_tokens"),
    *("least_kv", "least_expected_work", "least_work_left", "heavy_light"),
)


def in_windows(program: Program, output: Output) -> Program:
    """Return a program that runs in windows of so many requests; its columns are on the disk if it is long.

    Raises CompileError with everything that needs all requests at once, or HermesFlowError where there is no room for
    temporary files.
    """
    window = output.stream_requests
    assert window is not None
    problems = [
        f"{KEY}: {what}, which takes the whole list of requests in memory; expected null"
        for what in dict.fromkeys(
            [*_of_output(output), *_of_requests(program), *_of_pools(program), *_of_ops(program)]
        )
    ]
    if problems:
        raise CompileError(problems)
    if len(program.requests) <= WINDOWS_IN_MEMORY * window:
        return program
    requests, ops = on_disk((program.requests, program.ops))
    return replace(program, requests=requests, ops=ops, stream_requests=window)


def _of_output(output: Output) -> Iterator[str]:
    for name in ("steps", "trace", "report"):
        if getattr(output, name):
            yield f"output.{name} is true"


def _of_requests(program: Program) -> Iterator[str]:
    requests = program.requests
    if requests.wait_for_answers:
        yield "arrivals depend on answers"
    if requests.timeout_ns is not None:
        yield "the workload has timeouts"
    if program.admission is not None:
        yield "the cluster has a gateway (cluster.admission)"
    if program.sites is not None:
        yield "the cluster has sites"
    for name in (*_columns_beside(requests, _REQUEST_COLUMNS), "prefixes", "stages"):
        if getattr(requests, name) is not None:
            yield f"the workload has {_WORDS.get(name, f'{name} of each request')}"
    if program.phases:
        yield "the load has phases"
    if program.load_routes:
        yield "the pipeline has routes by load"


def _of_pools(program: Program) -> Iterator[str]:
    for number, pool in enumerate(program.pools):
        shares = pool.device is not None or any(other.device == number for other in program.pools)
        for what in (*_of_clients(pool), *(["a device that others use, too"] if shares else [])):
            yield f"cluster.pools.{pool.name} has {what}"


def _of_clients(pool: Pool) -> Iterator[str]:
    spec = pool.client
    if not kind_called(spec.kind).renews:
        yield f"the kind {spec.kind}"
    if pool.fleet is not None:
        yield "clients that come and go"
    if pool.joins is not None:
        yield "the router of another pool"
    if pool.count > 1 and (routing := routing_policies.name_of(pool.routing)) not in _ROUTING:
        yield f"the routing {routing}"
    if not isinstance(spec, LLMClientSpec):
        return
    if spec.sglang is not None or spec.tensorrt_llm is not None:
        yield "another scheduler than that of vLLM"
    if spec.by_priority:
        yield "scheduling_policy=priority"
    if spec.attention_ranks > 1:
        yield "data-parallel attention"
    if spec.pipeline_ranks > 1:
        yield "pipeline parallelism"
    if spec.packing is not None:
        yield "another packing than fcfs"
    if spec.prefix_cache:
        yield "a prefix cache"


def _of_ops(program: Program) -> Iterator[str]:
    for op in program.ops:
        name = "+".join(op.stages)
        if op.taken is not None or op.decided is not None:
            yield f"only some requests take stage {name}"
        if op.kv is not None or op.context is not None or op.data:
            yield f"data of an earlier stage move to stage {name}"
        if op.with_op is not None:
            yield f"stage {name} follows another one to its client"
        if op.at_token is not None:
            yield f"stage {name} begins with a token of an answer"
        if len(op.after) > 1:
            yield f"stage {name} waits for several others"
        for column in _columns_beside(op.work, _WORK_COLUMNS):
            yield f"stage {name} has {column} of each request"


def _columns_beside(whole: Any, known: frozenset[str]) -> list[str]:
    """Return the names of all columns of a dataclass that are not among the known ones."""
    return [
        field.name
        for field in fields(whole)
        if field.name not in known and isinstance(getattr(whole, field.name), np.ndarray)
    ]
