"""A config.json, or the folder that holds one, as an entry of the catalog of models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hermes_flow.config.convert import convert
from hermes_flow.config.hugging_face.families import FAMILIES, WRAPPED, Family
from hermes_flow.config.hugging_face.json_file import json_file
from hermes_flow.config.hugging_face.parameters import counted_parameters, indexed_parameters
from hermes_flow.config.hugging_face.quantization import precision_of
from hermes_flow.config.hugging_face.shape import layout_of, shape_of
from hermes_flow.config.hugging_face.side_encoders import side_encoders_of
from hermes_flow.config.hugging_face.source import Source
from hermes_flow.config.hugging_face.unmodelled import check_modelled, unread
from hermes_flow.config.model import Model
from hermes_flow.config.shape import rank_modules
from hermes_flow.config.shape import whole as all_layers
from hermes_flow.errors import ConfigError, nearest

# The keys that hold a language model within a model of several.
_WITHIN = ("text_config", "llm_config", "language_config")


def entry_of(path: str | Path, kind: str | None = None, name: str | None = None) -> dict[str, Any]:
    """Return the model of ``path`` as the catalog writes it, under ``name`` (default: that of its file or folder).

    ``kind`` is ``decoder`` or ``encoder`` where the files do not say it. Raises ConfigError, which names the file,
    the key and what is known, for a model type that is not known and for layers that have no cost model.
    """
    file = Path(path).expanduser()
    file = file / "config.json" if file.is_dir() else file
    whole = json_file(file)
    if whole is None:
        raise ConfigError(
            str(file), "there is no such file; expected a config.json of Hugging Face, or its folder"
        )
    if not isinstance(whole, Mapping):
        raise ConfigError(str(file), "is not a JSON object; expected a config.json of Hugging Face")
    asked: list[str] = []
    try:
        return _entry(file, whole, kind, name, asked)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        key = f"{file}: {asked[-1]}" if asked else str(file)
        raise ConfigError(key, "has a form that is not known, or does not go with the other keys") from error


def _entry(
    file: Path, whole: Mapping[str, Any], kind: str | None, name: str | None, asked: list[str]
) -> dict[str, Any]:
    """Return the entry; ``asked`` takes the keys that are read."""
    family, source = _language_model(str(file), whole, asked)
    check_modelled(source)
    given_kind = kind
    source = replace(source, keys={**family.defaults, **source.keys})
    layout = layout_of(source, family)
    kind = kind or _kind(file, whole, family)
    shape = {"name": name or name_of(file), "kind": kind, **shape_of(source, family, layout)}
    if kind == "encoder":
        shape["tied_embeddings"] = True
    shape["side_encoders"], notes = side_encoders_of(whole, shape["hidden_size"])
    model = convert(Model, {**shape, "parameters_b": 1.0}, "model")
    quantization = _quantization(file, whole, source)
    precision = precision_of(source, layout, rank_modules(model, all_layers(model)), quantization)
    dtype = source.get("torch_dtype", "dtype") or whole.get("torch_dtype", whole.get("dtype"))
    counted = counted_parameters(model, source.integer("max_position_embeddings") if family.positions else 0)
    indexed = indexed_parameters(file.parent, dtype, quantization is not None)
    return {
        **shape,
        "parameters_b": float(f"{indexed or counted:.6g}"),
        "notes": [
            *notes,
            *_notes(whole, source, family),
            *_kind_note(whole, given_kind, kind, family),
            *unread(source),
        ],
        "sampling": _sampling(file, kind),
        "precision": precision,
    }


def name_of(path: Path) -> str:
    """Return the name of an entry: of the file where that says more than config.json, else of its folder."""
    stem = path.stem.removesuffix("_config")
    if stem == "config":
        folder = path.resolve().parent
        if folder.parent.name.startswith("models--"):  # a snapshot in the cache of huggingface_hub
            folder = folder.parent
        if folder.name and folder.parent.parent.name.startswith("models--"):
            folder = folder.parent.parent
        stem = folder.name
    stem = re.split(r"--|/", stem)[-1]
    return re.sub(r"[^a-z0-9]+", "_", stem.lower()).strip("_") or "imported"


def _language_model(file: str, whole: Mapping[str, Any], asked: list[str]) -> tuple[Family, Source]:
    """Return how the language model is read, and its keys."""
    outer = whole.get("model_type")
    within = next((name for name in _WITHIN if isinstance(whole.get(name), Mapping)), None)
    keys = whole if within is None else whole[within]
    prefix = "" if within is None else f"{within}."
    if within is not None and keys.get("tie_word_embeddings") is None and "tie_word_embeddings" in whole:
        keys = {**keys, "tie_word_embeddings": whole["tie_word_embeddings"]}
    source = Source(file, keys, asked)
    kind = keys.get("model_type", outer)
    if not isinstance(kind, str):
        raise source.fault(
            f"{prefix}model_type", "missing; expected the type of a model, as transformers writes it"
        )
    if kind not in FAMILIES:
        kind = WRAPPED.get(kind, WRAPPED.get(str(outer), kind) if kind == outer else kind)
    if kind in FAMILIES:
        return FAMILIES[kind], source
    check_modelled(source)  # names the layers rather than the type, where the keys show them
    known = sorted({*FAMILIES, *WRAPPED})
    near = "".join(f"; did you mean {name!r}?" for name in nearest(kind, known)[:1])
    raise source.fault(f"{prefix}model_type", f"unknown: {kind}{near}; known are {', '.join(known)}")


def _quantization(file: Path, whole: Mapping[str, Any], source: Source) -> Any:
    """Return the quantization config, None without one: in the config.json, or in hf_quant_config.json beside it."""
    for keys in (whole, source.keys):
        for name in ("quantization_config", "compression_config"):
            if keys.get(name) is not None:
                return keys[name]
    beside = json_file(file.with_name(file.name.replace("config.json", "hf_quant_config.json")))
    return beside.get("quantization") if isinstance(beside, Mapping) else None


def _kind(file: Path, whole: Mapping[str, Any], family: Family) -> str:
    """Tell an encoder by its family, its head, or the files of sentence-transformers beside it."""
    pooled = (file.parent / "modules.json").is_file() if file.stem == "config" else False
    return "decoder" if _writes(whole) and not pooled and not family.encoder else "encoder"


def _writes(whole: Mapping[str, Any]) -> bool:
    """Whether the head of the model, or of the language model within it, is one that writes; also without any."""
    parts = [whole, *(whole[name] for name in _WITHIN if isinstance(whole.get(name), Mapping))]
    listed = [part.get("architectures") for part in parts]
    heads = [str(heads[0]) for heads in listed if isinstance(heads, list) and heads]
    return not heads or any(head.endswith(("ForCausalLM", "ForConditionalGeneration")) for head in heads)


def _kind_note(whole: Mapping[str, Any], given: str | None, kind: str, family: Family) -> list[str]:
    """Return a note where a model counts as an encoder because of its head alone."""
    if given is not None or kind == "decoder" or family.encoder or _writes(whole):
        return []
    return [
        f"read as an encoder, as architectures is {whole['architectures'][0]}; task.model_kind says otherwise"
    ]


def _notes(whole: Mapping[str, Any], source: Source, family: Family) -> list[str]:
    """Return what the entry leaves out or simplifies."""
    notes = []
    if not any(name in whole for name in ("vision_config", "audio_config")) and "text_config" in whole:
        notes.append("only the language model (text_config) is read")
    if family.windows == "llama4" and source.get("attention_chunk_size"):
        notes.append("attention in chunks counts as a sliding window of a chunk's length")
    if source.get("altup_num_inputs"):
        notes.append(
            "the alternating updates (AltUp) and LAuReL of every layer are left out, 1 % of the weights"
        )
    if source.get("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers"):
        notes.append("layers that predict further tokens (MTP) are left out")
    if family.gathers_heads:
        notes.append(
            "queries and keys are normalised over all heads, for which tensor-parallel devices gather them in each "
            "layer; that is left out"
        )
    return notes


def _sampling(file: Path, kind: str) -> dict[str, bool]:
    beside = file.with_name(file.name.replace("config.json", "generation_config.json"))
    found = json_file(beside)
    if kind == "encoder" or not isinstance(found, Mapping):
        return {"sorted": False, "penalties": False}
    given = {"top_p": 1.0, "top_k": 0.0, "repetition_penalty": 1.0}
    for name in given:
        value = found.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise ConfigError(f"{beside}: {name}", f"{value!r} is not a number")
        given[name] = value or given[name]
    sorted_by = given["top_p"] < 1.0 or given["top_k"] > 0
    return {"sorted": sorted_by, "penalties": given["repetition_penalty"] != 1.0}
