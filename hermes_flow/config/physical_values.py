"""Checks the numbers of a configuration that was made in Python, and the shapes of models."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

from hermes_flow.config.convert import child, convert_value, field_types, number_type
from hermes_flow.config.model import Experts
from hermes_flow.config.quick_values import OTHER, Take, take
from hermes_flow.config.schema import Model
from hermes_flow.errors import ConfigError, did_you_mean


def out_of_range(thing: Any, key: str = "") -> list[str]:
    """Return a problem for every number of a dataclass, at any depth, that is outside the range of its key.

    A configuration that was read has none: ``convert`` refuses them. ``key`` is the full key of ``thing``.
    """
    problems: list[str] = []
    if dataclasses.is_dataclass(thing) and not _is_sound(thing):
        hints = field_types(typing.cast(Any, type(thing)))
        for field in dataclasses.fields(thing):
            if field.init and hints[field.name] is not Any:
                _check(hints[field.name], getattr(thing, field.name), child(key, field.name), problems)
    return problems


def _is_sound(thing: Any) -> bool:
    """Return whether no number of a dataclass is out of range, without making any key: most have none."""
    cls: Any = type(thing)
    for name, take_plain, sound in _checks_of(cls):
        value = getattr(thing, name)
        if take_plain(value) is OTHER and not sound(value):
            return False
    return True


@functools.cache
def _checks_of(cls: Any) -> tuple[tuple[str, Take, Callable[[Any], bool]], ...]:
    """Return the fields of a dataclass, each with a short and a long way to tell that a value is sound."""
    hints = field_types(cls)
    return tuple(
        (field.name, _plain(hints[field.name]), _sound(hints[field.name]))
        for field in dataclasses.fields(cls)
        if field.init and hints[field.name] is not Any
    )


def _plain(kind: Any) -> Take:
    """Return ``take`` for a type whose plain values have one range; a value of several types goes the long way."""
    several = len([member for member in _members(kind) if member is not type(None)]) > 1
    return (lambda value: OTHER) if several else take(kind)


@functools.cache
def _sound(kind: Any) -> Callable[[Any], bool]:
    """Return whether a value of a type has surely no number out of range, as a function of the value."""
    members = _members(kind)
    numbers = [typing.get_args(each) for each in members if number_type(each) in (int, float)]
    ranges = [(each[0], each[1]) for each in numbers if each]
    entries = [_sound(typing.get_args(each)[1]) for each in members if typing.get_origin(each) is dict]
    items = [_sound(typing.get_args(each)[0]) for each in members if typing.get_origin(each) is tuple]

    def is_sound(value: Any) -> bool:
        if value is None or isinstance(value, (str, bool)):
            return True
        if isinstance(value, (int, float)):
            return len(ranges) == len(numbers) and all(
                isinstance(value, (inner, int)) and limits.holds(value) for inner, limits in ranges
            )
        if dataclasses.is_dataclass(value):
            return _is_sound(value)
        if isinstance(value, Mapping):
            return all(sound(entry) for sound in entries for entry in value.values())
        return not isinstance(value, tuple) or all(sound(item) for sound in items for item in value)

    return is_sound


def _check(kind: Any, value: Any, key: str, problems: list[str]) -> None:
    if dataclasses.is_dataclass(value):
        problems += out_of_range(value, key)
    elif isinstance(value, Mapping):
        for member in _members(kind):
            if typing.get_origin(member) is dict:
                for name, entry in value.items():
                    _check(typing.get_args(member)[1], entry, child(key, name), problems)
    elif isinstance(value, tuple):
        for member in _members(kind):
            if typing.get_origin(member) is tuple:
                for number, entry in enumerate(value):
                    _check(typing.get_args(member)[0], entry, child(key, number), problems)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        for member in _members(kind):
            if number_type(member) in (int, float):
                try:
                    convert_value(member, value, key)
                except ConfigError as error:
                    problems.append(str(error))


def _members(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) in (types.UnionType, typing.Union) else (kind,)


def _check_layers(model: Model, key: str, problems: list[str]) -> None:
    """Append layers that are counted more often than there are any, and models without attention."""
    own = model.attention_layers
    mixers = {name: mixer.layers for name, mixer in model.mixers.items()}
    mlps = {name: other.layers for name, other in model.mlps.items()}
    for group, counts in (("mixers", mixers), ("mlps", mlps)):
        for name, count in counts.items():
            if count > model.layers:
                problems.append(
                    f"{key}.{group}.{name}.layers: {count} is above the model's layers ({model.layers})"
                )
    if own is None:
        own = model.layers - sum(mixers.values())
    if not 0 <= own <= model.layers:
        problems.append(
            f"{key}.mixers: they have {sum(mixers.values())} layers, the model {model.layers}; where layers have "
            "several mixers, set attention_layers"
        )
    if model.sliding_window is not None and model.sliding_window.layers > max(0, own):
        problems.append(
            f"{key}.sliding_window.layers: {model.sliding_window.layers} is above the layers with the model's own "
            f"attention ({own})"
        )
    attends = any(mixer.kind == "attention" and mixer.own_kv for mixer in model.mixers.values())
    if own <= 0 and not attends and model.kind == "decoder":
        problems.append(f"{key}.mixers: {model.name} has no layer with KV, and such models are not simulated")
    if model.mlp_layers is not None and model.experts is not None:
        problems.append(
            f"{key}.mlp_layers: {model.mlp_layers}; with experts, set experts.dense_layers instead"
        )
    dense = _dense(model)
    if not 0 <= dense <= model.layers:
        problems.append(f"{key}.mlps: they have {sum(mlps.values())} layers, the model {model.layers}")


def _dense(model: Model) -> int:
    if model.mlp_layers is not None:
        return model.mlp_layers
    if model.experts is not None:
        return model.experts.dense_layers
    return model.layers - sum(other.layers for other in model.mlps.values())


def _modules(model: Model) -> list[str]:
    """Return the names of the modules that may have a precision of their own."""
    names = ["attention", "mlp", "output_head", *model.mixers, *model.mlps]
    if model.sparse_attention is not None:
        names.append("indexer")
    if model.experts is not None:
        names += ["experts", "router"] + ["shared_experts"] * (model.experts.shared > 0)
    return names


def _check_groups(experts: Experts, key: str, found: list[str]) -> None:
    groups, chosen = experts.groups, experts.groups_per_token
    if experts.count % groups:
        found.append(f"{key}.groups: {groups} does not divide the {experts.count} experts")
    elif chosen > groups:
        found.append(f"{key}.groups_per_token: {chosen} is above groups ({groups})")
    elif chosen * (experts.count // groups) < experts.per_token <= experts.count:
        found.append(
            f"{key}.groups_per_token: {chosen} groups of {experts.count // groups} experts have fewer than "
            f"per_token ({experts.per_token})"
        )


def check_model(model: Model, key: str, problems: list[str]) -> None:
    """Append the impossible values of the model by itself."""
    found: list[str] = []
    experts = model.experts
    if experts is not None:
        for name, limit, most in (
            ("per_token", "count", experts.count),
            ("dense_layers", "the model's layers", model.layers),
        ):
            if getattr(experts, name) > most:
                found.append(f"{key}.experts.{name}: {getattr(experts, name)} is above {limit} ({most})")
        _check_groups(experts, f"{key}.experts", found)
    window, kept = model.sliding_window, model.precision.unquantized_layers
    if window is not None and window.layers > model.layers:
        found.append(
            f"{key}.sliding_window.layers: {window.layers} is above the model's layers ({model.layers})"
        )
    if not found:
        _check_layers(model, key, found)
    dense = _dense(model)
    if kept > dense:
        found.append(
            f"{key}.precision.unquantized_layers: {kept} is above the layers with a dense MLP ({dense})"
        )
    left = model.precision.unquantized
    for name, there in (("mlp", dense > 0), ("shared_experts", experts is not None and experts.shared > 0)):
        if name in left and not there:
            found.append(f"{key}.precision.unquantized: {name} is given, but {model.name} has none")
    for name, each in model.precision.modules.items():
        if each.module not in (known := _modules(model)):
            where = f"{key}.precision.modules.{name}.module"
            found.append(f"{where}: {model.name} has no {each.module}{did_you_mean(each.module, known)}")
    used = {model.precision.weights, *(each.weights for each in model.precision.modules.values())}
    if model.precision.group_size is not None and not used & {"int4", "int8"}:
        found.append(
            f"{key}.precision.group_size: has no effect without weights in int4 or int8; expected null"
        )
    if (left or kept) and model.precision.weights == "bf16":
        which = "unquantized" if left else "unquantized_layers"
        found.append(f"{key}.precision.{which}: has no effect with weights in bf16; expected it empty or 0")
    problems += found
