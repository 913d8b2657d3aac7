"""Writes the config.json of a model with odd values, missing keys and damaged text."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fuzz.entries import ODD
from benchmarks.fuzz.outcome import Outcome, Try, attempt

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "vocab_size": 32000,
    "num_hidden_layers": 16,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "intermediate_size": 5632,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
_SHAPES: tuple[dict[str, Any], ...] = (
    _LLAMA,
    {**_LLAMA, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2},
    {**_LLAMA, "model_type": "qwen2", "sliding_window": 4096, "use_sliding_window": False},
    {
        **_LLAMA,
        "model_type": "qwen3_moe",
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 768,
        "head_dim": 128,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
    {**_LLAMA, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}},
    {"model_type": "gemma3", "text_config": {**_LLAMA, "model_type": "gemma3_text", "head_dim": 128}},
    {**_LLAMA, "model_type": "bert", "architectures": ["BertModel"], "max_position_embeddings": 512},
)
_BESIDE: dict[str, dict[str, Any]] = {
    "generation_config.json": {"top_p": 0.9, "top_k": 20, "repetition_penalty": 1.1},
    "model.safetensors.index.json": {"metadata": {"total_size": 2.6e9}, "weight_map": {}},
    "hf_quant_config.json": {"quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": None}},
}


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of a model by their names, and the changes that are drawn for them."""

    texts: Mapping[str, str]
    changes: tuple[str, ...]

    def write(self, folder: Path, changes: tuple[str, ...]) -> list[str]:
        """Write the files with these changes, and return what changed."""
        texts, said = dict(self.texts), []
        for change in changes:
            chance = random.Random(change)
            name = chance.choice(list(texts))
            texts[name] = _changed(chance, texts[name])
            said.append(f"{name}: {texts[name]}")
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
        return said


def random_files(rng: random.Random) -> ModelFiles:
    """Draw the files of a model."""
    shape = rng.choice(_SHAPES)
    beside = [name for name in _BESIDE if rng.random() < 0.3]
    texts = {"config.json": json.dumps(shape, indent=1)}
    texts |= {name: json.dumps(_BESIDE[name], indent=1) for name in beside}
    changes = tuple(f"change {rng.randrange(10**6)}" for _ in range(rng.choice((1, 1, 2, 3))))
    return ModelFiles(texts, changes)


def model_file(rng: random.Random) -> Try:
    """Draw the files of a model; the parts of the case are the changes of these files."""
    files = random_files(rng)

    def run(changes: tuple[str, ...]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            said = files.write(Path(folder), changes)
            given = [f"model={folder}", "workload.requests=5", "pipeline=llm"]
            return attempt(given, names=folder, shown=said)

    return Try("model file", files.changes, run)


def _changed(rng: random.Random, text: str) -> str:
    if rng.random() < 0.2:
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        lines[at : at + rng.choice((0, 1))] = [rng.choice((*lines, "{", "]", '"x": NaN,', ""))]
        return "\n".join(lines)
    try:
        content = json.loads(text)
    except ValueError:
        return text
    if not isinstance(content, dict) or not content:
        return text
    name = rng.choice(list(content))
    inner = content[name]
    node = content
    if isinstance(inner, dict) and inner and rng.random() < 0.7:
        node, name = inner, rng.choice(list(inner))
    if rng.random() < 0.75:
        node[name] = rng.choice(ODD)
    else:
        del node[name]
    return json.dumps(content, indent=1)
