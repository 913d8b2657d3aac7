"""What parallelism, precision and speculation make of an LLM pool, through the configuration a user writes."""

from __future__ import annotations

import functools

import pytest
from compiler.configs import config, problems_of

import hermes_flow as hf
from hermes_flow.config.schema import Config
from hermes_flow.program.pools import LLMClientSpec, Pool

LARGE = ("workload.requests=5", "model=llama3_70b", "cluster.pools.llm.tensor_parallel=4")
DRAFT = "+model@cluster.pools.llm.speculative.draft=llama3_8b"
RANKS = (
    "workload.requests=5",
    "model=deepseek_v3",
    "hardware=h200_sxm",
    "cluster.pools.llm.data_parallel=16",
    "cluster.pools.llm.expert_parallel=true",
)


@functools.cache
def llm_pool(*overrides: str) -> Pool:
    (pool,) = (pool for pool in hf.compile(config(*overrides)).pools if pool.name == "llm")
    return pool


def client(*overrides: str) -> LLMClientSpec:
    found = llm_pool(*overrides).client
    assert isinstance(found, LLMClientSpec)
    return found


def test_by_default_there_is_one_rank_and_no_speculation() -> None:
    plain = client("workload.requests=5")
    assert (plain.pipeline_ranks, plain.upstream, plain.hop_ps_per_token, plain.hop_ps) == (1, None, 0.0, 0)
    assert plain.speculation is None
    assert (plain.cost.attention_ranks, plain.cost.tokens_per_decode) == (1, 1)


def test_pipeline_ranks_have_a_cost_each_and_a_hop_between() -> None:
    one = client(*LARGE)
    two = client(*LARGE, "cluster.pools.llm.pipeline_parallel=2")
    assert (two.pipeline_ranks, two.devices) == (2, 8)
    assert two.upstream is not None
    for table in ("tokens_ps", "sequences_ps", "decode_attention_ps"):
        assert len(getattr(two.upstream, table)) == len(getattr(one.cost, table))
    through = two.cost.step_ps([(500, 0)], 20, 9000) + two.upstream.step_ps([(500, 0)], 20, 9000)
    assert through == pytest.approx(one.cost.step_ps([(500, 0)], 20, 9000), abs=1e5)
    assert two.hop_ps_per_token == pytest.approx(8192 * 2 / 450e9 * 1e12)
    assert two.hop_ps == 4_300_000


def test_a_stage_of_an_affine_cost_takes_its_share() -> None:
    line = (
        "workload.requests=5",
        "cost=affine",
        "cost.fixed_us=6000",
        "cluster.pools.llm.pipeline_parallel=3",
    )
    found = client(*line)
    assert found.upstream is not None
    assert found.upstream.tokens_ps[1] == found.cost.tokens_ps[1] == 2_000_000_000
    assert (found.hop_ps_per_token, found.hop_ps) == (0.0, 0)


def test_ranks_and_experts_lie_on_all_devices_of_a_client() -> None:
    spread = client(*RANKS)
    assert spread.devices == 16
    assert spread.cost.attention_ranks == 16
    assert len(spread.cost.tokens_ps) == 8192 + 1
    assert len(spread.cost.experts_ps) == 16 * 8192 + 1
    assert (spread.attention_ranks, spread.max_num_seqs, spread.seats) == (16, 256, 16 * 256)
    assert spread.kv_blocks % 16 == 0


def test_all_devices_of_a_client_are_paid() -> None:
    assert llm_pool(*RANKS).usd_per_hour == pytest.approx(16 * 4.59)
    stages = llm_pool("workload.requests=5", "hardware=h200_sxm", "cluster.pools.llm.pipeline_parallel=4")
    assert stages.usd_per_hour == pytest.approx(4 * 4.59)


def test_speculation_gives_a_ratio_of_tokens_to_steps() -> None:
    drafted = client(*LARGE, DRAFT)
    assert drafted.speculation == (27731, 10000)
    assert drafted.cost.tokens_per_decode == 5
    some = client(
        *LARGE,
        DRAFT,
        "cluster.pools.llm.speculative.tokens=1",
        "cluster.pools.llm.speculative.acceptance=0.5",
    )
    assert some.speculation == (3, 2)
    assert some.cost.tokens_per_decode == 2


def test_a_figure_of_the_draft_model_can_be_changed_where_it_was_chosen() -> None:
    quantized = (*LARGE, DRAFT, "cluster.pools.llm.speculative.draft.precision.weights=int4")
    assert client(*quantized).kv_blocks > client(*LARGE, DRAFT).kv_blocks
    assert "draft layers: int4 weights widened to bf16 in the kernel" in "\n".join(llm_pool(*quantized).notes)


def test_whole_prompts_need_tables_for_the_drafted_tokens_too() -> None:
    found = client("workload.requests=5", DRAFT, "cluster.pools.llm.batching=continuous")
    assert len(found.cost.tokens_ps) > 8192 + 5 * 256


def test_a_pool_on_several_ranks_rejects_what_no_rank_can_hold() -> None:
    def on_blocks(blocks: int) -> Config:
        return config(
            "workload=closed_loop",
            "workload.requests=3",
            "workload.input_tokens=1590",
            "workload.output_tokens=11",
            *RANKS[1:],
            f"cluster.pools.llm.kv_blocks={blocks}",
        )

    hf.compile(on_blocks(100))
    assert problems_of(on_blocks(99)) == [
        "workload: every request is larger than the KV cache of a rank of llm (1,584 tokens); nothing can be served; "
        "expected shorter requests, or more cluster.pools.llm.kv_blocks (null has those that fit)"
    ]


def test_the_notes_tell_how_the_model_lies_on_the_devices() -> None:
    notes = llm_pool(*LARGE, "cluster.pools.llm.pipeline_parallel=3").notes
    assert notes[2] == "tensor parallel 4, pipeline parallel 3 (27 + 27 + 26 layers)"
    assert notes[3].endswith(") on the pipeline rank with least room")
    assert notes[4].endswith("; through all 3 pipeline ranks")
    assert notes[-3].startswith(
        "hop between pipeline ranks: 16,384 bytes a token at 47 GB/s to another node, 11.8 µs of latency"
    )
    ranks = llm_pool(*RANKS).notes
    assert ranks[2] == (
        "tensor parallel 1, data-parallel attention on 16 ranks, in lockstep (least requests), expert parallel"
    )
    assert " tokens on 16 ranks: 0.9 of memory is 135.1 GB a device" in ranks[3]


def test_the_note_on_speed_counts_every_stage_once() -> None:
    line = (
        "workload.requests=5",
        "cost=affine",
        "cost.fixed_us=6000",
        "cluster.pools.llm.pipeline_parallel=3",
    )
    (note,) = [note for note in llm_pool(*line).notes if note.endswith("; through all 3 pipeline ranks")]
    assert note.startswith("a step of 1 decode 6.00 ms, of 32 6.00 ms")


@pytest.mark.parametrize(("tensor_parallel", "heads_a_device"), [(1, 8), (4, 2)])
def test_a_block_is_swapped_by_all_devices_at_once(tensor_parallel: int, heads_a_device: int) -> None:
    """A device copies the keys and values of 16 tokens (32 layers, heads of 128, bf16) over a link of 50 GB/s."""
    swapping = client(
        "workload.requests=5",
        "model=llama3_8b",
        "cluster.pools.llm.preemption=swap",
        "hardware.host_link_gb_s=50",
        f"cluster.pools.llm.tensor_parallel={tensor_parallel}",
    )
    copied_bytes = 16 * 32 * 2 * heads_a_device * 128 * 2
    assert swapping.swap_ps_per_block == round(copied_bytes / 50e9 * 1e12)


def test_the_notes_tell_what_speculation_gives_and_holds() -> None:
    notes = llm_pool(*LARGE, DRAFT).notes
    assert notes[2] == (
        "speculation: llama3_8b drafts 4 tokens a step, each accepted with probability 0.7: 2.77 tokens a "
        "step expected"
    )
    assert "GB of weights (4.0 GB the draft's)" in notes[3]


def test_a_pool_without_any_of_it_has_no_note_of_it() -> None:
    kept = llm_pool(*LARGE).notes
    assert len(kept) == 8
    assert kept[2].startswith("KV ")
    assert kept[3].startswith("a step of 1 decode ")
    assert kept[3].endswith(" ms")
    assert kept[-2].startswith("defaults of engine vllm: ")
