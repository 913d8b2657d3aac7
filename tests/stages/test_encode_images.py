"""Images become tokens of prompts, and encoding them takes time: on a pool of its own, or within the engine."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from oracles.client_runs import run_alone
from oracles.llm_client import OraclePolicy, simulate_llm_client
from oracles.llm_images import NaiveImages
from oracles.random_systems import random_system
from tries import tries

import hermes_flow as hf
from hermes_flow.config.hugging_face.side_encoders import side_encoders_of
from hermes_flow.config.vision import image_patches, image_tokens, tower_of
from hermes_flow.pools.llm.client import LLMClient

MULTIMODAL = ["pipeline=multimodal", "workload.requests=60", "workload.rate_per_s=60"]
# An image of 1,024 patches, so that a pass over n of them takes 300 + 1,024·n microseconds.
AFFINE = [
    "pipeline.stages.encode.width_px=512",
    "pipeline.stages.encode.height_px=512",
    "cluster.pools.vision.cost={kind: affine, fixed_us: 300, per_token_us: 1, per_context_us: 0}",
]
APART = "cluster.pools.vision.if_needed=false"
IN_ENGINE = ["cluster.pools.llm.serves=[prefill, decode, encode_images]"]


def simulated(*overrides: str) -> hf.Result:
    return hf.simulate(hf.compile(hf.compose([*overrides])))


def stage_rows(result: hf.Result, stage: str) -> list[dict[str, Any]]:
    return [row for row in result.stages.to_dicts() if row["stage"] == stage]


def test_qwen_makes_a_token_of_32_pixels_squared_and_gemma_280_of_every_image() -> None:
    qwen, gemma = (
        tower_of(hf.compose([f"model={name}"]).model) for name in ("qwen3_vl_8b", "gemma_4_26b_a4b")
    )
    assert qwen is not None
    assert gemma is not None
    assert (image_tokens(qwen, 1024, 768), image_patches(qwen, 1024, 768)) == (32 * 24, 64 * 48)
    assert image_tokens(qwen, 40, 10) == 1  # edges are rounded, and no image is nothing
    assert (image_tokens(gemma, 1024, 768), image_patches(gemma, 64, 64)) == (280, 280 * 9)


def test_prompts_grow_by_the_tokens_of_their_images_and_those_without_skip_the_stage() -> None:
    result = simulated(*MULTIMODAL)
    encoded = {row["request"]: row for row in stage_rows(result, "encode")}
    prompts = {row["request"]: row["tokens"] for row in stage_rows(result, "prefill")}
    images = result.requests["images"].to_list()
    assert set(encoded) == {request for request, count in enumerate(images) if count}
    for request, text in enumerate(result.requests["input_tokens"].to_list()):
        assert prompts[request] == text + 1024 * images[request]
    assert all(row["tokens"] == 4096 * images[request] for request, row in encoded.items())


def test_tokens_that_the_workload_counts_already_are_not_added_again() -> None:
    result = simulated(*MULTIMODAL, "pipeline.stages.encode.in_prompt=true")
    prompts = [row["tokens"] for row in stage_rows(result, "prefill")]
    assert prompts == result.requests["input_tokens"].to_list()
    given = simulated(*MULTIMODAL, "pipeline.stages.encode.tokens_per_image=7")
    added = sum(row["tokens"] for row in stage_rows(given, "prefill")) - sum(prompts)
    assert added == 7 * sum(result.requests["images"].to_list())


@pytest.mark.parametrize("most", [1, 3])
def test_a_pool_of_encoders_makes_passes_as_a_naive_server_does(most: int) -> None:
    pool = ["cluster.pools.vision.cost.per_token_us=20", f"cluster.pools.vision.max_batch={most}"]
    result = simulated(*MULTIMODAL, *AFFINE, *pool)
    rows = sorted(stage_rows(result, "encode"), key=lambda row: (row["ready_s"], row["request"]))
    waiting = [(round(row["ready_s"] * 1e9), row["tokens"], row) for row in rows]
    free_ns, full = 0, 0
    while waiting:
        start = max(free_ns, waiting[0][0])
        batch = [each for each in waiting if each[0] <= start][:most]
        waiting = waiting[len(batch) :]
        free_ns = start + 300_000 + 20_000 * sum(tokens for _, tokens, _ in batch)
        full += len(batch) > 1
        for _, _, row in batch:
            assert (round(row["start_s"] * 1e9), round(row["finish_s"] * 1e9)) == (start, free_ns)
    assert full or most == 1


@pytest.mark.parametrize("batching", ["chunked", "continuous", "mixed"])
def test_an_engine_that_encodes_images_equals_the_naive_one_on_random_systems(batching: str) -> None:
    rng = random.Random(160_707)
    encoding = found = waiting = 0
    for attempt in range(tries(30, of=400)):
        system = random_system(rng, batching=batching, policy=OraclePolicy(prefix_cache=bool(attempt % 2)))
        unit = max(1, system.spec.cost.tokens_ps[-1])
        tokens, most = rng.randint(1, 6), rng.choice([2, 5, 60])
        naive = NaiveImages(
            tokens,
            [unit * number // 7 for number in range(5)],
            kept_tokens=rng.choice([1, 8, 20, 500]),
            step_tokens=rng.choice([1, 4, 9, 500]),
        )
        requests = [
            replace(one, images=tuple(rng.randrange(most) for _ in range(rng.choice([0, 1, 2, 4]))))
            for one in system.requests
        ]
        system = replace(system, requests=requests, policy=replace(system.policy, images=naive))
        client, tasks = run_alone(LLMClient, system)
        expected = simulate_llm_client(system.spec, requests, system.policy)
        assert (list(tasks.first_ps), list(tasks.finish_ps)) == (expected.first_ps, expected.finish_ps)
        cache = client.batch.images
        assert cache is not None
        assert expected.images is not None
        assert (cache.encoded, cache.found) == (expected.images.encoded, expected.images.found)
        encoding, found = encoding + cache.encoded, found + cache.found
        waiting += naive.step_tokens < 10
    assert min(encoding, found) > 100
    assert waiting > 5


def test_within_the_engine_a_lone_prompt_takes_the_time_of_its_images_longer() -> None:
    affine = "cost={kind: affine, fixed_us: 300, per_token_us: 1, per_context_us: 0}"
    alone = [
        *(affine, "pipeline=multimodal", "workload.requests=20", "workload.rate_per_s=0.1", *IN_ENGINE),
        *("workload.arrivals=constant", *AFFINE[:2], "cluster.pools.llm.max_num_batched_tokens=16384"),
    ]
    encoding = simulated(*alone, "pipeline.stages.encode.pool=llm")
    given = simulated(*alone, *AFFINE[2:], "pipeline.stages.encode.pool=vision", APART)
    assert not stage_rows(encoding, "encode")
    counts = encoding.requests["images"].to_list()
    pairs = zip(stage_rows(encoding, "prefill"), stage_rows(given, "prefill"), strict=True)
    for count, (ours, theirs) in zip(counts, pairs, strict=True):
        extra = 300e-6 + 1024e-6 * count if count else 0.0
        assert ours["service_s"] - theirs["service_s"] == pytest.approx(extra, abs=2e-9)


def test_without_images_the_pipeline_is_a_chat_and_says_so() -> None:
    same = ["model=qwen3_vl_8b", "workload=azure_conv_1_per_s", "workload.requests=50"]
    images, chat = simulated("pipeline=multimodal", *same), simulated("pipeline=chat", *same)
    assert images.requests.drop("pipeline", "energy_j").equals(chat.requests.drop("pipeline", "energy_j"))
    assert any("pipeline.stages.encode: no request has images" in text for text in images.summary["warnings"])
    bare = simulated("workload=images", "workload.requests=50")
    assert any("workload.images: they (" in text for text in bare.summary["warnings"])


def test_images_of_a_trace_are_read_and_encoded(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,images\n0,10,2,2\n1,10,2,\n")
    result = simulated("pipeline=multimodal", "workload=trace", f"workload.path={path}")
    assert [row["tokens"] for row in stage_rows(result, "prefill")] == [10 + 2 * 1024, 10]
    assert len(stage_rows(result, "encode")) == 1


def named_images(path: Path, *rows: str) -> list[str]:
    """Return the load of a trace whose images have names."""
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens,image_hashes", *rows]) + "\n")
    return ["pipeline=multimodal", "workload=trace", f"workload.path={path}"]


def test_an_image_that_comes_again_is_not_encoded_again(tmp_path: Path) -> None:
    cost = "cluster.pools.llm.cost={kind: affine, fixed_us: 300, per_token_us: 1, per_context_us: 0}"
    rows = ("0,100,2,a|b", "10,100,2,b|c|c", "20,100,2,", "30,100,2,a")
    load = [
        *named_images(tmp_path / "t.csv", *rows),
        *IN_ENGINE,
        "pipeline.stages.encode.pool=llm",
        cost,
        *AFFINE[:2],
    ]
    load.append("cluster.pools.llm.prefix_cache=false")

    def encoding_ms(*overrides: str) -> list[float]:
        """Return what prefills take besides 300 microseconds and one for each token; an image has 256 tokens."""
        result = simulated(*load, *overrides)
        assert result.requests["images"].to_list() == [2, 3, 0, 1]
        return [
            round(row["service_s"] * 1e3 - 0.3 - (100 + 256 * images) * 1e-3, 6)
            for row, images in zip(stage_rows(result, "prefill"), (2, 3, 0, 1), strict=True)
        ]

    one, two = 0.3 + 1.024, 0.3 + 2 * 1.024  # a pass over 1,024 patches of each image
    assert encoding_ms() == pytest.approx([two, one, 0, 0])  # b is there, c is encoded once, a is there
    # Two images are kept: b and c, so that a is encoded again.
    assert encoding_ms("cluster.pools.llm.encoder_cache_size=512") == pytest.approx([two, one, 0, one])
    summary = simulated(*load).summary["images"]["llm"]
    assert summary == {"encoded": 3, "found": 3, "found_share": 0.5}


def test_a_step_encodes_no_more_tokens_of_images_than_it_may_compute(tmp_path: Path) -> None:
    rows = [f"0,100,2,{number}" for number in range(4)]
    cost = "cluster.pools.llm.cost={kind: affine, fixed_us: 300, per_token_us: 1, per_context_us: 0}"
    load = [
        *named_images(tmp_path / "t.csv", *rows),
        *IN_ENGINE,
        "pipeline.stages.encode.pool=llm",
        cost,
        *AFFINE[:2],
    ]
    load += ["cluster.pools.llm.prefix_cache=false", "pipeline.stages.encode.in_prompt=true"]
    # Prompts of 100 tokens, in which images of 256 are counted already: a step of 700 tokens encodes two of them.
    result = simulated(*load, "cluster.pools.llm.max_num_batched_tokens=700")
    starts = [row["start_s"] for row in stage_rows(result, "prefill")]
    assert (
        len({round(start, 9) for start in starts[:2]}) == len({round(start, 9) for start in starts[2:]}) == 1
    )
    assert starts[2] == pytest.approx(starts[0] + (0.3 + 0.2 + 2 * 1.324) * 1e-3, abs=1e-9)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (("0,10,2,1,a|b",), "image_hashes has 2, and images is 1; expected as many"),
        (("0,10,2,1,{}",), "a list of image ids such as [0, 1, 2] or 0|1|2"),
    ],
)
def test_names_of_images_that_cannot_be_are_refused_with_their_line(
    rows: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["arrival_s,input_tokens,output_tokens,images,image_hashes", *rows]) + "\n")
    with pytest.raises(hf.HermesFlowError) as caught:
        hf.compile(hf.compose(["pipeline=multimodal", "workload=trace", f"workload.path={path}"]))
    assert message in str(caught.value)
    assert "t.csv:2: " in str(caught.value)


def test_a_pool_of_encoders_says_that_it_knows_no_image_again(tmp_path: Path) -> None:
    program = hf.compile(hf.compose(named_images(tmp_path / "t.csv", "0,100,2,a", "1,100,2,a")))
    assert any("the column 'image_hashes' has no effect" in text for text in program.warnings)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=llama3_8b"], "cluster.pools.vision.model: llama3_8b has no vision encoder of a known shape"),
        (
            ["+model@cluster.pools.vision.model=qwen3_5_27b"],
            "pipeline.stages.encode.pool: it has the encoder of qwen3_5_27b, and 'llm' prefills with qwen3_vl_8b",
        ),
        (
            [*IN_ENGINE, "engine=sglang", "pipeline.stages.encode.pool=llm"],
            "cluster.pools.llm.engine: sglang; expected vllm to encode images on this pool",
        ),
        (
            [*IN_ENGINE, "cluster.pools.llm.pipeline_parallel=2", "pipeline.stages.encode.pool=llm"],
            "cluster.pools.llm.pipeline_parallel: 2; expected 1 to encode images on this pool",
        ),
        (
            [*IN_ENGINE, "pipeline.stages.encode.pool=llm", "+slo.stages={encode: {p50: 5}}"],
            "slo.stages.encode: an engine encodes images within the prefill",
        ),
        (
            ["pipeline.stages.encode.width_px=90000"],
            "cluster.pools.vision.max_batch: 8 tasks of encoding images",
        ),
        (
            ["workload.images={distribution: fixed, value: 2e6}"],
            "workload.images: gives 2e+06; expected at most",
        ),
    ],
)
def test_what_cannot_be_encoded_is_refused_by_name(overrides: list[str], message: str) -> None:
    with pytest.raises((hf.CompileError, hf.ConfigError)) as caught:
        hf.compile(hf.compose(["pipeline=multimodal", *overrides]))
    assert message in str(caught.value)


def test_tokens_of_images_are_added_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,input_tokens,output_tokens,images\n0,10,2,2\n")
    given = ["pipeline=multimodal", "workload=trace", f"workload.path={path}", "workload.tokens_per_image=9"]
    with pytest.raises(hf.CompileError, match="the stage 'encode' adds the tokens of images; leave it out"):
        hf.compile(hf.compose(given))
    hf.compile(hf.compose([*given, "pipeline.stages.encode.in_prompt=true"]))


def test_an_encoder_with_windows_is_imported_without_its_layers() -> None:
    shape = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "intermediate_size": 3420, "patch_size": 14}
    known, notes = side_encoders_of({"vision_config": {**shape, "spatial_merge_size": 2}}, 3584)
    assert known["vision"]["tower"]["layers"] == 32
    assert notes == []
    windowed = {**shape, "spatial_merge_size": 2, "fullatt_block_indexes": [7, 15]}
    found, notes = side_encoders_of({"vision_config": windowed}, 3584)
    assert "tower" not in found["vision"]
    assert notes == ["the encoder of vision_config takes memory; its passes are not simulated"]
