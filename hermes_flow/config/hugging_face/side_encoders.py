"""The encoders of images and sounds beside a language model: their weights, and the layers of those of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Vision models with a gate in their MLP: three matrices.
_GATED = ("pixtral", "gemma4_vision", "qwen2_5_vl", "glm4v", "glm4v_moe", "glm4v_vision", "mistral3", "aimv2")
_LAYERS = ("depth", "num_hidden_layers", "vt_num_hidden_layers", "encoder_layers", "num_blocks")
_WIDTH = ("embed_dim", "hidden_size", "vt_hidden_size", "d_model")
_HEADS = ("num_heads", "num_attention_heads", "vt_num_attention_heads", "encoder_attention_heads")
_MLP = ("intermediate_size", "vt_intermediate_size", "encoder_ffn_dim")


def side_encoders_of(whole: Mapping[str, Any], hidden: int) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Return the encoders beside a language model with ``hidden`` channels, and notes on what is left out of them."""
    found: dict[str, dict[str, Any]] = {}
    notes = []
    for key, name in (("vision_config", "vision"), ("audio_config", "audio")):
        given = whole.get(key)
        if not isinstance(given, Mapping):
            continue
        outer = str(whole.get("model_type", ""))
        kind = str(given.get("model_type") or outer)
        shuffled = whole.get("downsample_ratio")
        if outer in ("internvl", "internvl_chat") and isinstance(shuffled, float) and 0 < shuffled <= 1:
            given = {**given, "downsample_ratio": shuffled}
        parameters = _parameters(given, kind, hidden)
        if parameters is None:
            notes.append(f"the encoder of {key} is left out: its size is not in the keys that are known")
            continue
        found[name] = {"parameters_b": float(f"{parameters / 1e9:.4g}")}
        tower = _tower(given, kind, hidden) if name == "vision" else None
        if tower is not None:
            found[name]["tower"] = tower
        else:
            notes.append(f"the encoder of {key} takes memory; its passes are not simulated")
    return found, notes


def _parameters(given: Mapping[str, Any], kind: str, hidden: int) -> float | None:
    """Return the weights of a vision transformer and its projector, None where its size is not said."""
    layers, width = _number(given, _LAYERS), _number(given, _WIDTH)
    if kind in ("qwen2_vl", "qwen2_5_vl") and given.get("hidden_size") and "embed_dim" not in given:
        width = int(given["hidden_size"])
    if layers is None or width is None:
        return None
    inner = _number(given, _MLP) or round(float(given.get("mlp_ratio", 4)) * width)
    matrices = 3 if kind in _GATED else 2
    total = layers * (4 * width**2 + matrices * width * inner)
    patch = given.get("patch_size")
    if isinstance(patch, int):
        channels = given.get("in_channels", given.get("in_chans", given.get("num_channels", 3)))
        total += width * int(channels) * patch**2 * int(given.get("temporal_patch_size", 1))
    table = given.get("num_position_embeddings")
    if isinstance(table, int):
        total += table * width
    elif isinstance(given.get("position_embedding_size"), int):
        total += 2 * given["position_embedding_size"] * width
    elif isinstance(given.get("init_pos_emb_height"), int):
        total += given["init_pos_emb_height"] * int(given.get("init_pos_emb_width", 1)) * width
    return total + _projector(given, width, hidden)


def _tower(given: Mapping[str, Any], kind: str, hidden: int) -> dict[str, Any] | None:
    """Return the layers of a vision transformer; None where the keys do not say them, or attention has windows.

    How many patches make a token is in one of three keys: of Qwen's and GLM's models, of Kimi's, and of Gemma's.
    """
    windows = any(given.get(key) for key in ("fullatt_block_indexes", "window_size"))
    layers, width, heads = _number(given, _LAYERS), _number(given, _WIDTH), _number(given, _HEADS)
    merge = given.get("spatial_merge_size", given.get("merge_kernel_size", given.get("pooling_kernel_size")))
    merge = merge[0] if isinstance(merge, list) and len({*merge}) == 1 else merge
    patch = given.get("patch_size")
    if windows or None in (layers, width, heads) or not isinstance(merge, int) or not isinstance(patch, int):
        return None
    assert layers is not None
    assert width is not None
    tower = {
        "layers": layers,
        "hidden_size": width,
        "heads": heads,
        "intermediate_size": _number(given, _MLP) or round(float(given.get("mlp_ratio", 4)) * width),
        "patch_px": patch,
        "merge": merge,
        "mlp": "gated" if kind in _GATED else "plain",
        "projector_b": float(f"{_projector(given, width, hidden) / 1e9:.4g}"),
    }
    fixed = given.get("default_output_length")
    return {**tower, "tokens": fixed} if isinstance(fixed, int) else tower


def _projector(given: Mapping[str, Any], width: int, hidden: int) -> float:
    """Return the weights between the encoder and the language model."""
    if given.get("pixel_shuffle_ratio") and given.get("projector_output_dim"):  # Llama 4
        shuffled = round(width / float(given["pixel_shuffle_ratio"]) ** 2)
        inner, seen = int(given["projector_input_dim"]), int(given["projector_output_dim"])
        return float(shuffled * inner + inner * seen + seen * hidden)
    if given.get("downsample_ratio"):  # InternVL
        shuffled = round(width / float(given["downsample_ratio"]) ** 2)
        return float(shuffled * hidden + hidden**2)
    out = given.get("out_hidden_size", given.get("text_hidden_size"))
    out = out if isinstance(out, int) else hidden
    merge = given.get("spatial_merge_size", given.get("merge_kernel_size", 1))
    cells = merge[0] * merge[1] if isinstance(merge, list) else int(merge) ** 2
    merged = cells * width
    deep = given.get("deepstack_visual_indexes")
    mergers = 1 + (len(deep) if isinstance(deep, list) else 0)
    if cells == 1:
        return float(width * out)
    return float(mergers * (merged**2 + merged * out))


def _number(given: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((given[name] for name in names if isinstance(given.get(name), int)), None)
