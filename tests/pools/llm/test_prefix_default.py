"""``prefix_cache: null`` is true where settings allow it and prompts can be found again, else false."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.errors import CompileError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import LLMClientSpec

SESSIONS = ("pipeline=llm", "workload=sessions", "workload.sessions=30")
SYNTHETIC = ("pipeline=llm", "workload=synthetic", "workload.requests=40")
OPEN: dict[str, Any] = {"prefix_cache": None}


def config(*overrides: str, pool: str = "llm", **changes: Any) -> Config:
    base = hf.compose(list(overrides))
    old = base.cluster.pools[pool]
    assert isinstance(old, LLMPool)
    pools = base.cluster.pools | {pool: replace(old, **(OPEN | changes))}
    return replace(base, cluster=replace(base.cluster, pools=pools))


def choice(config: Config, pool: str = "llm") -> tuple[bool, str]:
    """Whether a pool of the compiled program has a prefix cache, and what its note says about it."""
    (found,) = [own for own in hf.compile(config).pools if own.name == pool]
    assert isinstance(found.client, LLMClientSpec)
    (note,) = [note for note in found.notes if note.startswith("prefix cache")]
    return found.client.prefix_cache, note


def trace(folder: Path, hashes: list[list[int]], block_tokens: int) -> tuple[str, ...]:
    """A trace of requests with these block ids, all of the blocks full."""
    path = folder / "trace.jsonl"
    rows = [
        {
            "arrival_s": float(number),
            "input_tokens": block_tokens * len(ids) + 1,
            "output_tokens": 5,
            "prefix_hashes": ids,
        }
        for number, ids in enumerate(hashes)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return (
        "pipeline=llm",
        "workload=trace",
        f"workload.path={path}",
        f"workload.prefix_block_tokens={block_tokens}",
    )


def test_sessions_are_found_again() -> None:
    on = (True, "prefix cache on (by default: several prompts begin with the same block)")
    assert choice(config(*SESSIONS)) == on


def test_prompts_that_nobody_shares_need_no_prefix_cache() -> None:
    off = (False, "prefix cache off (by default: no prompt of this workload can be found again)")
    assert choice(config(*SYNTHETIC)) == off
    alone = ("workload.turns=1", "workload.system_prompt_tokens=0")
    assert choice(config(*SESSIONS, *alone)) == off


@pytest.mark.parametrize(("system_tokens", "on"), [(15, False), (16, True)])
def test_a_system_prompt_is_found_where_it_fills_a_block(system_tokens: int, on: bool) -> None:
    alike = (
        "workload.turns=1",
        "workload.system_prompts=1",
        f"workload.system_prompt_tokens={system_tokens}",
    )
    assert choice(config(*SESSIONS, *alike))[0] == on


def test_branches_and_loops_go_on_from_a_prompt() -> None:
    because = "prefix cache on (by default: branches, loops or scores go on from a prompt)"
    for pipeline in ("reasoning_multi", "agent"):
        drawn = (f"pipeline={pipeline}", "cluster=agent", "workload=synthetic", "workload.requests=5")
        assert choice(config(*drawn)) == (True, because)


@pytest.mark.parametrize(
    ("hashes", "block_size", "on"),
    [
        ([[1, 2], [1, 3]], 32, True),
        ([[1, 2], [3, 4]], 32, False),
        ([[1, 2], [1, 3]], 64, False),  # no full block is common
        ([[1, 2], [1, 2]], 64, True),
        ([[], [1], [2]], 16, False),
    ],
)
def test_the_block_ids_of_a_trace_say_what_is_common(
    tmp_path: Path, hashes: list[list[int]], block_size: int, on: bool
) -> None:
    assert choice(config(*trace(tmp_path, hashes, 32), block_size=block_size))[0] == on


def test_blocks_that_do_not_fit_those_of_the_workload_are_a_warning_and_with_true_an_error(
    tmp_path: Path,
) -> None:
    shared = trace(tmp_path, [[1, 2], [1, 3]], 32)
    program = hf.compile(config(*shared, block_size=24))
    assert program.warnings == (
        "cluster.pools.llm has no prefix cache: its blocks of 24 tokens neither divide nor are a multiple of the "
        "workload's of 32",
    )
    with pytest.raises(CompileError, match="24 neither divides nor is a multiple of the 32"):
        hf.compile(config(*shared, block_size=24, prefix_cache=True))


def test_settings_that_rule_it_out_turn_it_off_and_make_true_an_error() -> None:
    assert choice(config(*SESSIONS, batching="static")) == (
        False,
        "prefix cache off (by default: static batching pads its prompts and reuses none)",
    )
    with pytest.raises(CompileError, match=r"cluster\.pools\.llm\.prefix_cache: true, but static batching"):
        hf.compile(config(*SESSIONS, batching="static", prefix_cache=True))


def test_branches_on_a_pool_that_cannot_have_one_are_an_error() -> None:
    branching = config("pipeline=reasoning_multi", "cluster=agent", "workload.requests=5", batching="static")
    with pytest.raises(CompileError, match=r"prefix_cache: null, and static batching pads .* branches"):
        hf.compile(branching)


def test_true_and_false_are_the_users_word() -> None:
    assert choice(config(*SYNTHETIC, prefix_cache=True)) == (True, "prefix cache on (prefix_cache: true)")
    assert choice(config(*SESSIONS, prefix_cache=False)) == (False, "prefix cache off (prefix_cache: false)")


@pytest.mark.parametrize("overrides", [SESSIONS, SYNTHETIC], ids=["sessions", "synthetic"])
def test_the_tables_are_those_of_the_value_that_was_chosen(overrides: tuple[str, ...]) -> None:
    chosen, _ = choice(config(*overrides))
    ours = hf.simulate(hf.compile(config(*overrides)))
    theirs = hf.simulate(hf.compile(config(*overrides, prefix_cache=chosen)))
    for table in ("requests", "stages", "clients"):
        assert_frame_equal(getattr(ours, table), getattr(theirs, table))


def test_a_prefix_cache_that_can_find_nothing_is_said_by_name() -> None:
    expected = "cluster.pools.llm.prefix_cache: true, but no prompt of this workload can be found again"
    (warning,) = hf.compile(config(*SYNTHETIC, prefix_cache=True)).warnings
    assert warning.startswith(expected)
    assert hf.compile(config(*SESSIONS, prefix_cache=True)).warnings == ()


def test_hashes_of_a_trace_behind_a_retrieved_context_are_said_to_be_unread(tmp_path: Path) -> None:
    overrides = [word for word in trace(tmp_path, [[1, 2], [1, 3], []], 16) if word != "pipeline=llm"]
    warnings = hf.compile(hf.compose(["pipeline=kv_reuse", *overrides])).warnings
    expected = "the prefix_hashes of 2 requests are not read on cluster.pools.llm: their prompts begin with"
    assert [warning for warning in warnings if warning.startswith(expected)]
