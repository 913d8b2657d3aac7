"""The precision of a checkpoint: what is quantized to what, and which modules stay bf16."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hermes_flow.config.hugging_face.checkpoint import Patterns, Tensors, tensors_of
from hermes_flow.config.hugging_face.numbers import (
    BF16,
    Pair,
    algorithm_precision,
    method_precision,
    quark_precision,
    scheme_precision,
)
from hermes_flow.config.hugging_face.shape import Layout
from hermes_flow.config.hugging_face.source import Source
from hermes_flow.config.shape import Module

_KEY = "quantization_config"
_IGNORED = (
    "modules_to_not_convert",
    "ignored_layers",
    "ignore",
    "exclude_modules",
    "exclude",
    "llm_int8_skip_modules",
)
# Modules whose bf16 weights the key ``unquantized`` can say.
_WHOLE = ("attention", "mlp", "shared_experts")


@dataclass(frozen=True, slots=True)
class _Choice:
    """The precision of matrices: ``default`` for all that nothing names, and one by name."""

    default: Pair | None
    named: tuple[tuple[Patterns, Pair], ...] = ()

    def of(self, name: str) -> Pair | None:
        """Return the precision that the checkpoint gives a module by name."""
        return next((pair for patterns, pair in self.named if patterns.match(name)), None)


def precision_of(source: Source, layout: Layout, modules: Sequence[Module], given: Any) -> dict[str, Any]:
    """Return ``precision`` as the catalog writes it; ``given`` is the quantization config, None without one.

    Raises ConfigError for a method that is not known, and for matrices that are quantized in part.
    """
    plain: dict[str, Any] = {"weights": "bf16", "kv_cache": "bf16", "activations": "bf16"}
    nothing: dict[str, Any] = {"unquantized": [], "unquantized_layers": 0, "group_size": None}
    nothing |= {"fp8_blocks": False, "modules": {}}
    if given is None:
        return {**plain, **nothing}
    if not isinstance(given, Mapping):
        raise source.fault(_KEY, f"{given!r} is not a mapping")
    try:
        return {**plain, **nothing, **_quantized(source, layout, modules, given)}
    except (AttributeError, KeyError, TypeError, re.error) as error:
        raise source.fault(_KEY, "has a form that is not known") from error


def _quantized(
    source: Source, layout: Layout, modules: Sequence[Module], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the precision of a checkpoint that is quantized."""
    found: dict[str, Any] = {}
    scheme = given.get("kv_cache_scheme")
    in_fp8 = isinstance(scheme, Mapping) and scheme.get("num_bits") == 8
    if given.get("kv_cache_quant_algo") == "FP8" or in_fp8:
        found["kv_cache"] = "fp8"
    ignored, choice = Patterns(_ignored(source, given)), _choice(source, given)
    pairs = {
        (tensors.module, tensors.matrix, tensors.layer): _pair(source, tensors, ignored, choice)
        for tensors in tensors_of(layout, modules)
    }
    if (
        str(given.get("quant_method")) == "mxfp4"
    ):  # quantizes the experts alone (transformers, Mxfp4HfQuantizer)
        pairs = {key: pair if key[0] in ("experts", "router") else BF16 for key, pair in pairs.items()}
    default = choice.default or _heaviest(pairs, modules)
    found["weights"], found["activations"] = default
    if default[0] in ("int4", "int8"):
        found["group_size"] = _group_size(given)
    elif default == ("fp8", "fp8"):
        found["fp8_blocks"] = _in_blocks(given)
    head = None if ignored.match("lm_head") else choice.of("lm_head")
    return found | _differing(pairs, default, head)


def _group_size(given: Mapping[str, Any]) -> int | None:
    """Return how many weights share a scale; None where a whole row does, or where it is not said."""
    found = given.get("group_size", given.get("q_group_size"))
    groups = given.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        found = found or (group.get("weights") or {}).get("group_size")
    return found if isinstance(found, int) and found > 0 else None


def _in_blocks(given: Mapping[str, Any]) -> bool:
    """Return whether blocks of a matrix have scales of their own."""
    groups = given.get("config_groups")
    each_group = groups.values() if isinstance(groups, Mapping) else ()
    found = [(group.get("weights") or {}).get("block_structure") for group in each_group]
    found.append(given.get("weight_block_size"))
    return any(isinstance(each, list) and len(each) == 2 for each in found)


def _ignored(source: Source, given: Mapping[str, Any]) -> list[str]:
    patterns = []
    for name in _IGNORED:
        listed = given.get(name) or []
        if not isinstance(listed, list):
            raise source.fault(f"{_KEY}.{name}", f"{listed!r} is not a list of modules")
        patterns += [str(entry) for entry in listed]
    return patterns


def _choice(source: Source, given: Mapping[str, Any]) -> _Choice:
    """Return the precisions of a method; several where it gives them by module or by group of modules."""
    if given.get("quant_algo") == "MIXED_PRECISION":
        listed = given.get("quantized_layers")
        if not isinstance(listed, Mapping) or not listed:
            raise source.fault(f"{_KEY}.quantized_layers", "missing; MIXED_PRECISION needs it")
        named: dict[str, list[str]] = defaultdict(list)
        for name, entry in listed.items():
            named[entry["quant_algo"]].append(name)
        return _Choice(
            None,
            tuple((Patterns(names), algorithm_precision(source, each)) for each, names in named.items()),
        )
    if given.get("quant_method") == "quark":
        return _Choice(quark_precision(source, given))
    groups = given.get("config_groups")
    if given.get("quant_algo") is not None or given.get("quant_method") != "compressed-tensors":
        return _Choice(method_precision(source, given))
    if not isinstance(groups, Mapping) or not groups:
        raise source.fault(f"{_KEY}.config_groups", "missing; compressed-tensors needs it")
    default, by_name = None, []
    for group in groups.values():
        pair, targets = scheme_precision(source, group), group.get("targets") or ["Linear"]
        if targets in (["Linear"], ["re:.*"]):
            default = pair
        else:
            by_name.append((Patterns([str(target) for target in targets]), pair))
    return _Choice(default, tuple(by_name))


def _pair(source: Source, tensors: Tensors, ignored: Patterns, choice: _Choice) -> Pair:
    """Return the precision of one matrix in one layer, by the names that it may have in the checkpoint."""
    partly = ""
    for names in tensors.alternatives:
        found = [BF16 if ignored.match(name) else choice.of(name) for name in names]
        if found[0] is not None and len(set(found)) == 1:
            return found[0]
        if any(pair is not None for pair in found) and not partly:
            partly = next(name for name, pair in zip(names, found, strict=True) if pair is not None)
    if partly:
        raise source.fault(
            f"{_KEY}.{_of_list(source)}",
            f"leaves model.{partly} in another precision than the rest of {tensors.matrix}, with which engines "
            "compute it together; expected whole matrices",
        )
    return choice.default or BF16


def _of_list(source: Source) -> str:
    given = source.get(_KEY) or {}
    return next((name for name in _IGNORED if given.get(name)), "modules_to_not_convert")


def _heaviest(pairs: Mapping[tuple[str, str, int], Pair], modules: Sequence[Module]) -> Pair:
    """Return the precision of most weights that are quantized."""
    sizes = {
        (module.name, gemm.name): module.copies * gemm.parameters
        for module in modules
        for gemm in module.gemms
    }
    totals: Counter[Pair] = Counter()
    for (module, matrix, _), pair in pairs.items():
        totals[pair] += sizes[module, matrix]
    return max(totals, key=lambda pair: (pair != BF16, totals[pair]))


def _differing(
    pairs: Mapping[tuple[str, str, int], Pair], default: Pair, head: Pair | None
) -> dict[str, Any]:
    """Return ``unquantized``, ``unquantized_layers`` and ``modules``: all that has not the default."""
    counts: dict[str, dict[str, Counter[Pair]]] = defaultdict(lambda: defaultdict(Counter))
    for (module, matrix, _), pair in pairs.items():
        counts[module][matrix][pair] += 1
    whole = [
        name
        for name in _WHOLE
        if name in counts and all(set(each) == {BF16} for each in counts[name].values()) and default != BF16
    ]
    left = {
        name: matrices
        for name, matrices in counts.items()
        if name not in whole
        and name != "router"
        and any(set(each) != {default} for each in matrices.values())
    }
    layers = _whole_layers(left, whole, default)
    modules: dict[str, dict[str, Any]] = {}
    for name, matrices in left.items() if not layers else ():
        modules |= _entries(name, matrices, default)
    if head is not None and head != BF16:
        modules["output_head"] = _entry("output_head", head, None, [])
    return {"unquantized": whole, "unquantized_layers": layers, "modules": modules}


def _whole_layers(left: Mapping[str, Mapping[str, Counter[Pair]]], whole: list[str], default: Pair) -> int:
    """Return in how many layers attention and dense MLP stay bf16 together, 0 where that is not all that differs."""
    expected = {"mlp"} if "attention" in whole else {"attention", "mlp"}
    if set(left) != expected:
        return 0
    found = {frozenset(each.items()) for matrices in left.values() for each in matrices.values()}
    bf16 = {dict(each).get(BF16, 0) for each in found}
    pure = all(set(dict(each)) == {BF16, default} for each in found)
    return bf16.pop() if pure and len(bf16) == 1 else 0


def _entries(module: str, matrices: Mapping[str, Counter[Pair]], default: Pair) -> dict[str, dict[str, Any]]:
    """Return the entries of one module: for all its matrices at once where they agree, else for those that do."""
    groups: dict[frozenset[tuple[Pair, int]], list[str]] = defaultdict(list)
    for matrix, each in matrices.items():
        groups[frozenset(each.items())].append(matrix)
    found: dict[str, dict[str, Any]] = {}
    for counts, names in groups.items():
        total = sum(count for _, count in counts)
        some = names if len(groups) > 1 else []
        for pair, count in sorted(counts):
            if pair == default:
                continue
            label = "_".join([module, *some, *([pair[0]] if len(counts) > 2 else [])])
            found[label] = _entry(module, pair, None if count == total else count, some)
    return found


def _entry(module: str, pair: Pair, layers: int | None, matrices: list[str]) -> dict[str, Any]:
    weights, activations = pair
    return {
        "module": module,
        "weights": weights,
        "activations": activations,
        "layers": layers,
        "matrices": matrices,
    }
