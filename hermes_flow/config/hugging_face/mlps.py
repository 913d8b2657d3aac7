"""The MLPs of a model layer by layer: dense ones, of one width or several, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hermes_flow.config.hugging_face.families import Family
from hermes_flow.config.hugging_face.source import Source

_COUNT = ("num_local_experts", "n_routed_experts", "num_experts", "moe_num_experts")
_PER_TOKEN = (
    "num_experts_per_tok",
    "experts_per_token",
    "num_experts_per_token",
    "top_k_experts",
    "moe_k",
    "moe_topk",
    "moe_top_k",
)
_WIDTH = ("moe_intermediate_size", "expert_ffn_hidden_size", "intermediate_size")
_SHARED = ("n_shared_experts", "num_shared_experts", "moe_num_shared_experts", "num_shared_expert")
_SHARED_WIDTH = (
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "shared_intermediate_size",
    "share_expert_dim",
)


@dataclass(frozen=True, slots=True)
class MLPs:
    """The width of the dense MLP of every layer (None where there is none), and which layers have experts."""

    widths: tuple[int | None, ...]
    mixtures: tuple[int, ...]

    @property
    def own_width(self) -> int | None:
        """The width that most layers with a dense MLP have."""
        there = [width for width in self.widths if width is not None]
        return max(sorted(set(there)), key=there.count) if there else None

    @property
    def names(self) -> dict[int, str]:
        """The name of each width in the catalog; ``mlp`` is the model's own."""
        found = {width: f"mlp_{width}" for width in self.widths if width is not None}
        return found | ({self.own_width: "mlp"} if self.own_width is not None else {})

    def of(self, name: str) -> list[int]:
        """Return the layers that have the dense MLP ``name``."""
        names = self.names
        return [
            layer for layer, width in enumerate(self.widths) if width is not None and names[width] == name
        ]


def mlps_of(source: Source, family: Family) -> MLPs:
    """Return the MLPs of every layer; raises ConfigError for keys that are missing."""
    count = source.integer("num_hidden_layers")
    blocks = source.get("block_configs")
    if isinstance(blocks, list):
        return MLPs(tuple(_block_width(source, block) for block in blocks), ())
    kinds = _hybrid_kinds(source)
    if kinds is not None:
        width = source.integer("intermediate_size") if "mlp" in kinds else None
        widths = tuple(width if kind == "mlp" else None for kind in kinds)
        return MLPs(widths, tuple(layer for layer, kind in enumerate(kinds) if kind == "moe"))
    width = _dense_width(source)
    has_experts = family.experts and bool(source.get(*_COUNT))
    mixtures = _mixtures(source, family, count) if has_experts else []
    beside = bool(source.get("enable_moe_block"))
    wide = count - source.count("num_kv_shared_layers") if source.get("use_double_wide_mlp") else count
    listed = source.get("intermediate_size")
    found: list[int | None] = []
    for layer in range(count):
        own = int(listed[layer]) if isinstance(listed, list) else width
        own = 2 * own if layer >= wide else own
        found.append(None if layer in mixtures and not beside else own)
    return MLPs(tuple(found), tuple(mixtures))


def mlp_width(source: Source, mlps: MLPs) -> int:
    """Return ``intermediate_size`` of the model; that of an expert where no layer has a dense MLP."""
    return mlps.own_width or source.integer(*_WIDTH)


def experts_of(source: Source, family: Family, mlps: MLPs) -> dict[str, Any] | None:
    """Return the mixture of experts as the catalog writes it, None without one."""
    if not mlps.mixtures:
        return None
    width = source.integer(*_WIDTH)
    shared = source.count(*_SHARED)
    if source.get("interleave_moe_layer_step", "moe_layers") is not None and "llama4" in family.windows:
        shared = 1
    total, each = source.count(*_SHARED_WIDTH), None
    if total and total % width == 0:
        shared = total // width
    elif total:
        shared, each = 1, total
    dense = sum(own is not None for own in mlps.widths)
    plain = dense + len(mlps.mixtures) == len(mlps.widths) and len(mlps.names) <= 1
    return {
        "count": source.integer(*_COUNT),
        "per_token": source.integer(*_PER_TOKEN),
        "intermediate_size": width,
        "shared": shared,
        "dense_layers": len(mlps.of("mlp")),
        "layers": None if plain else len(mlps.mixtures),
        "shared_intermediate_size": each,
        "shared_gate": family.shared_gate and shared > 0,
        "latent_size": source.get("moe_latent_size"),
        **_groups(source),
        # vLLM and SGLang keep the router of MiniMax M2 in fp32, whatever the checkpoint says
        "router_precision": "fp32" if source.get("model_type") == "minimax_m2" else "bf16",
    }


def _groups(source: Source) -> dict[str, int]:
    """Return the groups of experts, and from how many of them a token chooses: from any with ``greedy``."""
    groups, chosen = (
        source.integer("n_group", "num_expert_group", default=1),
        source.integer("topk_group", default=1),
    )
    if source.get("topk_method") == "greedy":
        groups = chosen = 1
    return {"groups": groups, "groups_per_token": chosen}


def _dense_width(source: Source) -> int:
    listed = source.get("intermediate_size")
    if isinstance(listed, list):
        return int(listed[0])
    if source.get("intermediate_size_mlp") is not None:  # Llama 4
        return source.integer("intermediate_size_mlp")
    if source.get("block_auto_adjust_ff_dim"):  # LFM2 gives the width before the gate's two thirds
        width = int(2 * source.integer("intermediate_size", "block_ff_dim") / 3)
        width = int(float(source.get("block_ffn_dim_multiplier") or 1.0) * width)
        multiple = source.integer("block_multiple_of", default=256)
        return multiple * -(-width // multiple)
    return source.integer("intermediate_size", "block_ff_dim", "n_inner", "moe_intermediate_size")


def _hybrid_kinds(source: Source) -> list[str] | None:
    """Return the kinds of layers of a model in which a layer is a mixer or an MLP, None for any other."""
    pattern, listed = source.get("hybrid_override_pattern"), source.get("layers_block_type")
    if isinstance(pattern, str):
        return [{"-": "mlp", "E": "moe"}.get(letter, "mixer") for letter in pattern]
    if isinstance(listed, list) and any(kind in ("mlp", "moe") for kind in listed):
        return [str(kind) for kind in listed]
    return None


def _block_width(source: Source, block: Mapping[str, Any]) -> int | None:
    """Return the width of the MLP in one entry of ``block_configs``: None for none, 0 for one matrix.

    It is two thirds of ``ffn_mult`` times the hidden size, rounded up to a multiple of 256 (DeciLM).
    """
    given = block.get("ffn")
    if not isinstance(given, Mapping) or given.get("no_op"):
        return None
    if given.get("replace_with_linear"):
        return 0
    width = given.get("intermediate_size")
    if width is None:
        width = 256 * -(-int(2 * float(given["ffn_mult"]) * source.integer("hidden_size") / 3) // 256)
    return int(width)


def _mixtures(source: Source, family: Family, count: int) -> list[int]:
    """Return the layers that have experts."""
    listed = source.get("mlp_layer_types")
    frequency, chosen = source.get("moe_layer_freq"), source.get("moe_layers", "moe_layers_enum")
    if isinstance(listed, list):
        return [layer for layer, kind in enumerate(listed[:count]) if kind == "sparse"]
    if isinstance(frequency, list):
        return [layer for layer, sparse in enumerate(frequency[:count]) if sparse]
    if isinstance(chosen, str):
        chosen = [int(layer) for layer in chosen.split(",") if layer.strip()]
    if isinstance(chosen, list):
        return [layer for layer in range(count) if layer in chosen]
    if source.get("expert_layer_period"):
        period, offset = source.integer("expert_layer_period"), source.count("expert_layer_offset")
        return [layer for layer in range(count) if layer % period == offset]
    dense = source.get("mlp_only_layers") or []
    first = source.count("first_k_dense_replace", "moe_layer_start_index", "num_dense_layers")
    if source.get("first_k_dense_replace", "moe_layer_start_index") is not None or frequency:
        every = source.integer("moe_layer_freq", "moe_layer_interval", default=1)
        last = source.get("moe_layer_end_index")
        end = min(count, last + 1) if isinstance(last, int) and last >= 0 else count
        return [layer for layer in range(first, end) if layer not in dense and layer % every == 0]
    every = source.integer("decoder_sparse_step", "interleave_moe_layer_step", default=1)
    return [layer for layer in range(first, count) if layer not in dense and (layer + 1) % every == 0]
