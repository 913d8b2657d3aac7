"""Steps from tables per model and layer."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from cost.by_hand import us
from cost.measured import (
    DENSE,
    MIXTURE,
    MLP,
    SMALL,
    decode_us,
    kernels,
    prefill_us,
    write,
    write_layers,
)

from hermes_flow.errors import ConfigError

PER_STEP = DENSE["embedding"] + DENSE["final_layernorm"]
PER_LAYER = 2 * DENSE["layernorm"] + DENSE["qkv_proj"] + DENSE["rotary_emb"] + DENSE["o_proj"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_layers(tmp_path)


def line_us(tokens: float) -> float:
    return 0.3 + 0.01 * tokens


def test_every_layer_counts_as_often_as_the_model_has_it(folder: Path) -> None:
    cost = kernels(folder)
    weight = PER_STEP + 2 * (PER_LAYER + sum(MLP.values()))
    for tokens in (1, 30, 512):
        assert us(cost.tokens_ps[tokens]) == pytest.approx(weight * line_us(tokens))
    assert us(cost.sequences_ps[30]) == pytest.approx(2 * (20 + 30))


def test_attention_is_reduced_from_the_rows_with_one_kind_of_work(folder: Path) -> None:
    cost = kernels(folder)
    decoding = cost.step_ps([], 16, 16 * 700) - cost.tokens_ps[16] - cost.sequences_ps[16]
    assert us(decoding) == pytest.approx(2 * decode_us(16, 700), rel=1e-5)
    prompt = cost.step_ps([(128, 256)], 0, 0) - cost.tokens_ps[128] - cost.sequences_ps[1]
    assert us(prompt) == pytest.approx(2 * prefill_us(128, 256), rel=1e-3)


def test_rows_of_both_kinds_tell_how_well_their_sum_holds(folder: Path) -> None:
    assert "both in one step: 0.0 % off on average, at most 0 %, of 2 points" in kernels(folder).provenance


def beside_us(sequences: float, context: float) -> float:
    """Decode attention of a layer that shares a step with a chunk: slower in both terms."""
    return 12.0 + 1.5 * sequences + 0.005 * sequences * context


def test_decodes_beside_a_chunk_take_what_rows_with_both_say(folder: Path) -> None:
    path = folder / "attention.csv"
    lines = [
        line for line in path.read_text().splitlines() if not line.startswith(("128,256,4,", "128,256,16,"))
    ]
    for chunk, sequences, context in itertools.product((128, 512), (4, 16, 64), (512, 2048)):
        time_us = prefill_us(chunk, 256) + beside_us(sequences, context)
        lines.append(f"{chunk},256,{sequences},{context},{time_us}")
    path.write_text("\n".join(lines) + "\n")
    cost = kernels(folder)
    for sequences, context in ((4, 1000), (16, 700), (60, 2000)):
        alone = cost.step_ps([(128, 256)], 0, 0)
        rest = cost.tokens_ps[128 + sequences] - cost.tokens_ps[128]
        rest += cost.sequences_ps[1 + sequences] - cost.sequences_ps[1]
        both = cost.step_ps([(128, 256)], sequences, sequences * context)
        assert us(both - alone - rest) == pytest.approx(2 * beside_us(sequences, context), rel=0.02)
        attention = cost.step_ps([], sequences, sequences * context)
        attention -= cost.tokens_ps[sequences] + cost.sequences_ps[sequences]
        assert us(attention) == pytest.approx(2 * decode_us(sequences, context), rel=1e-4)
    assert any(note.startswith("decodes beside a prompt: 0.") for note in cost.provenance)


def test_what_the_tables_hold_is_not_charged_again(folder: Path) -> None:
    eager = {"above_tokens": 512, "above_per_sequence": 2, "layer_us": 9000, "experts_us": 9000}
    cost = kernels(folder, layer_us=50, eager=eager, sampler={"us_per_million": 1000.0})
    plain = kernels(folder)
    assert (cost.tokens_ps, cost.sequences_ps) == (plain.tokens_ps, plain.sequences_ps)


def test_experts_are_read_at_the_number_that_tokens_draw(folder: Path) -> None:
    lines = (folder / "dense.csv").read_text().splitlines()
    (folder / "dense.csv").write_text("\n".join(line for line in lines if line.split(",")[0] not in MLP))
    write(
        folder / "moe.csv",
        "tokens,activated_experts,time_us",
        [(t, e, 5 * e + t) for t in (1, 4, 64, 512) for e in (2, 4, 8)],
    )
    drawn = 8 * (1 - 0.75**10)
    expected = (PER_STEP + 2 * PER_LAYER) * line_us(10) + 2 * (5 * drawn + 10)
    assert us(kernels(folder, MIXTURE).tokens_ps[10]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("o_proj", "o_projection", r"dense.csv:17: unknown layer 'o_projection'; known: embedding"),
        ("act_fn,", "layernorm,", r"dense.csv: lacks the layer 'act_fn'"),
    ],
)
def test_layers_are_neither_dropped_nor_made_up(folder: Path, old: str, new: str, message: str) -> None:
    path = folder / "dense.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        kernels(folder)


def test_tables_of_a_larger_model_or_fewer_devices_are_noticed(folder: Path) -> None:
    wide = dataclasses.replace(SMALL, intermediate_size=16384)
    with pytest.raises(
        ConfigError, match=r"dense.csv: a layer's weights take 6 µs, .* of small on one of 1 devices"
    ):
        kernels(folder, wide)


def test_a_model_with_experts_needs_their_table(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"no table of moe \(it has: attention, dense, per_sequence\)"):
        kernels(folder, MIXTURE)
