from __future__ import annotations

from typing import Any

import numpy as np

from hermes_flow.compiler.fuse import fuse
from hermes_flow.compiler.materialize import materialize
from hermes_flow.compiler.parse import parse
from hermes_flow.config.schema import Pipeline
from hermes_flow.program.requests import Requests
from hermes_flow.stages.placed import PlacedStage


def ops_of(stages: dict[str, Any], count: int = 4, decode_on: str = "llm") -> dict[str, PlacedStage]:
    problems: list[str] = []
    graph = parse(Pipeline("test", stages), problems)
    column = np.arange(1, count + 1, dtype=np.int64)
    tasks = materialize(graph, Requests(column, 10 * column, column), 0, problems)
    assert problems == []
    placement = {
        stage.name: {"": "llm" if stage.params.client == "llm" else "host"} for stage in graph.stages.values()
    }
    placement |= {name: {"": decode_on} for name, stage in graph.stages.items() if stage.kind == "decode"}
    ops = fuse(placement, tasks, ["host", "llm", "second"], {})
    assert all(before < index for index, op in enumerate(ops) for before in op.after)
    return {op.name: op for op in ops}


def test_a_prefill_and_its_decode_become_one_op() -> None:
    ops = ops_of({"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"]}})
    assert list(ops) == ["generate"]
    op = ops["generate"]
    assert ([stage.name for stage in op.stages], op.pool) == (["prefill", "decode"], 1)
    assert op.output is not None
    assert (op.tokens.tolist(), op.output.tolist()) == ([10, 20, 30, 40], [1, 2, 3, 4])
    assert op.service_ns is None


def test_the_op_is_named_after_its_stages_where_they_have_names_of_their_own() -> None:
    assert list(ops_of({"ask": {"kind": "prefill"}, "say": {"kind": "decode", "after": ["ask"]}})) == [
        "ask+say"
    ]


def test_a_prefill_alone_emits_one_token() -> None:
    op = ops_of({"guard": {"kind": "prefill"}})["guard"]
    assert op.output is not None
    assert op.output.tolist() == [1, 1, 1, 1]
    assert [stage.name for stage in op.stages] == ["guard"]


def test_a_request_that_skips_the_decode_still_gets_the_first_token() -> None:
    op = ops_of(
        {
            "prefill": {"kind": "prefill"},
            "decode": {"kind": "decode", "after": ["prefill"], "when": "input_tokens > 20"},
        }
    )["generate"]
    assert op.output is not None
    assert op.output.tolist() == [1, 1, 3, 4]
    assert op.taken is None


def test_sequential_stages_stay_ops_of_their_own() -> None:
    ops = ops_of(
        {
            "tokenize": {"kind": "tokenize", "fixed_us": 1, "per_token_us": 1, "when": "input_tokens > 20"},
            "detokenize": {"kind": "detokenize", "after": ["tokenize"]},
        }
    )
    tokenize = ops["tokenize"]
    assert tokenize.service_ns is not None
    assert tokenize.taken is not None
    assert tokenize.service_ns.tolist() == [11_000, 21_000, 31_000, 41_000]
    assert tokenize.tokens.tolist() == [10, 20, 30, 40]
    assert tokenize.taken.tolist() == [False, False, True, True]
    assert (tokenize.output, tokenize.pool) == (None, 0)
    assert ops["detokenize"].after == (0,)


def test_edges_to_either_half_of_a_fused_op_lead_to_the_op_once() -> None:
    ops = ops_of(
        {
            "tokenize": {"kind": "tokenize"},
            "prefill": {"kind": "prefill", "after": ["tokenize"]},
            "decode": {"kind": "decode", "after": ["prefill"]},
            "left": {"kind": "detokenize", "after": ["decode"]},
            "right": {"kind": "detokenize", "after": ["decode", "tokenize"]},
            "last": {"kind": "detokenize", "after": ["left", "right"]},
        }
    )
    order = list(ops)
    edges = {name: tuple(order[before] for before in op.after) for name, op in ops.items()}
    assert edges == {
        "tokenize": (),
        "generate": ("tokenize",),
        "left": ("generate",),
        "right": ("tokenize", "generate"),
        "last": ("left", "right"),
    }


def test_a_decode_on_a_pool_of_its_own_is_skipped_by_a_request_whose_only_token_the_prefill_emits() -> None:
    stages = {"prefill": {"kind": "prefill"}, "decode": {"kind": "decode", "after": ["prefill"]}}
    ops = ops_of(stages, decode_on="second")
    prefill, decode = ops["prefill"], ops["decode"]
    assert decode.output is not None
    assert decode.taken is not None
    assert decode.output.tolist() == [1, 2, 3, 4]
    assert decode.taken.tolist() == [False, True, True, True]
    assert (prefill.taken, prefill.pool, decode.pool, decode.kv_from) == (None, 1, 2, 0)
