"""Converts plain containers to frozen dataclasses, and refuses unknown keys and wrong types."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hermes_flow.config.aliases import hint
from hermes_flow.config.out_of_range import all_out_of_range
from hermes_flow.config.quantities import Range, RangeError
from hermes_flow.config.quick_values import OTHER, Take, take
from hermes_flow.config.remembered import remembered
from hermes_flow.errors import ConfigError, did_you_mean

T = TypeVar("T")

# Metadata of a field that a configuration never sets: it records how others were filled.
INTERNAL: Mapping[str, Any] = {"internal": True}

_TYPE_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text"}


def convert(cls: type[T], value: Any, key: str) -> T:
    """Return ``value`` (a plain mapping, as YAML gives it) as an instance of the dataclass ``cls``.

    ``key`` is the full dotted key of ``value``, for messages. Raises ConfigError on an unknown or missing
    key, a wrong type, or a value outside its Literal. An error for numbers out of range names all of them.
    """
    try:
        return typing.cast(T, _dataclass(cls, value, key))
    except RangeError as first:
        raise all_out_of_range(lambda changed: _dataclass(cls, changed, key), value, key, first) from None


def settings(value: Any) -> Any:
    """Return a converted value as a configuration gives it: plain mappings and lists, without internal fields."""
    if dataclasses.is_dataclass(value):
        return {field.name: settings(getattr(value, field.name)) for field in _given(type(value))}
    if isinstance(value, Mapping):
        return {key: settings(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [settings(entry) for entry in value]
    return value


def child(key: str, name: object) -> str:
    """Return the full key of ``name`` below ``key`` (which is empty at the root)."""
    return f"{key}.{name}" if key else str(name)


@functools.cache
def field_types(cls: Any) -> dict[str, Any]:
    """Return the dataclass's field names with their resolved types.

    A value of type ``Annotated[…, registry]`` is read by the registry: its keys depend on its kind.
    """
    return typing.get_type_hints(cls, include_extras=True)


def number_type(kind: Any) -> Any:
    """Return a quantity as int or float; any other type is returned as it is."""
    if typing.get_origin(kind) is typing.Annotated and isinstance(typing.get_args(kind)[1], Range):
        return typing.get_args(kind)[0]
    return kind


def _dataclass(cls: Any, value: Any, key: str) -> Any:
    known_ones = remembered()
    if known_ones is None:
        return _converted(cls, value, key)
    known = known_ones.get((cls, key))
    if known is None or known[0] is not value:
        known = known_ones[cls, key] = (value, _converted(cls, value, key))
    return known[1]


def _converted(cls: Any, value: Any, key: str) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigError(key, f"{shown(value)} is not a mapping; expected the keys {_keys(cls)}")
    fields, hints, takes = _fields(cls), field_types(cls), _takes(cls)
    if not value.keys() <= fields.keys():
        name = next(name for name in value if name not in fields)
        known = hint(child(key, name)) or did_you_mean(str(name), fields)
        raise ConfigError(child(key, name), f"unknown key{known}")
    arguments = {}
    # In the order they were written, so that the caller decides which of several mistakes is named.
    for name, entry in value.items():
        taken = takes[name](entry)
        if taken is OTHER:
            if _is_open(entry):
                continue
            taken = convert_value(hints[name], entry, child(key, name))
        arguments[name] = taken
    if len(arguments) < len(value) or not arguments.keys() >= _required(cls):
        asked = {*value, *_required(cls)}
        missing = [name for name in fields if name in asked and name not in arguments]
        first = missing[0]
        expected = _expected(hints[first])
        said = (
            f"set it to {expected}, as in {child(key, first)}=…" if first in value else f"expected {expected}"
        )
        others = ", ".join(f"{name} ({_expected(hints[name])})" for name in missing[1:])
        also = f"; also missing: {others}" if others else ""
        raise ConfigError(child(key, first), f"missing; {said}{also}")
    try:
        return cls(**arguments)
    except (
        ConfigError
    ) as error:  # a class that checks its own figures knows their names, not where they stand
        if error.key == key or error.key.startswith(f"{key}."):
            raise
        raise ConfigError(child(key, error.key), error.problem) from None


def _is_open(value: Any) -> bool:
    """Tell whether a file leaves a value to the user."""
    return isinstance(value, str) and value == "???"


@functools.cache
def _required(cls: Any) -> frozenset[str]:
    """Return the names of the fields without a default."""
    missing = dataclasses.MISSING
    return frozenset(
        name
        for name, field in _fields(cls).items()
        if field.default is missing and field.default_factory is missing
    )


@functools.cache
def _takes(cls: Any) -> dict[str, Take]:
    """Return the function of each field that takes a plain value as it is."""
    hints = field_types(cls)
    return {name: take(hints[name]) for name in _fields(cls)}


def convert_value(kind: Any, value: Any, key: str) -> Any:
    """Return ``value`` as the type ``kind``, or raise ConfigError naming ``key`` and what was expected."""
    if kind is Any or (kind is type(value) and kind in (int, bool)):
        return value
    if _is_open(value):
        raise ConfigError(key, f"missing; set it to {_expected(kind)}, as in {key}=…")
    if kind is float or kind is str:
        return _scalar(kind, value, key)
    known = _known_types.get(id(kind)) or _known(kind)
    origin, arguments = known.origin, known.arguments
    if origin is typing.Annotated:
        inner, note = arguments
        if not isinstance(note, Range):
            return note.config(value, key)
        if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            note.check(
                value, key, _TYPE_WORDS[inner]
            )  # first, because int() and float() take no such numbers
        if isinstance(value, str):
            note.check_percent(value, key, _TYPE_WORDS[inner])
        return convert_value(inner, value, key)
    if origin in (types.UnionType, typing.Union):
        return _union(known, value, key)
    if origin is typing.Literal:
        for option in arguments:
            if value == option and type(value) is type(option):
                return option
        raise ConfigError(key, f"{shown(value)} is not valid{_options(value, arguments)}")
    if known.is_dataclass:
        return _dataclass(kind, value, key)
    if origin is dict:
        return _mapping(arguments, value, key)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            form = (
                f"; expected one, as in [{value}]"
                if isinstance(value, (str, int, float)) and shown(value) == repr(value)
                else ""
            )
            raise ConfigError(key, f"{shown(value)} is not a list{form}")
        return _items(arguments[0], value, key)
    return _scalar(kind, value, key)


def _items(kind: Any, values: Iterable[Any], key: str) -> tuple[Any, ...]:
    taking, items = _taking(kind), []
    for index, value in enumerate(values):
        item = taking(value)
        items.append(convert_value(kind, value, child(key, index)) if item is OTHER else item)
    return tuple(items)


class _KnownType(typing.NamedTuple):
    """A type of the schema and its parts: of a union, the types but null, and its dataclasses by their kind.

    ``take`` takes plain values as they are.
    """

    kind: Any
    origin: Any
    arguments: tuple[Any, ...]
    is_dataclass: bool
    options: tuple[Any, ...]
    tagged: dict[str, Any]
    take: Take


# By the identity of the type, because ``int | str`` equals ``str | int``, which is tried in another order.
_known_types: dict[int, _KnownType] = {}
_MOST_TYPES = 10_000


def _taking(kind: Any) -> Take:
    return (_known_types.get(id(kind)) or _known(kind)).take


def _known(kind: Any) -> _KnownType:
    """Take a type apart, and remember its parts."""
    origin, arguments, tagged = typing.get_origin(kind), typing.get_args(kind), {}
    options = tuple(member for member in arguments if member is not type(None))
    if origin in (types.UnionType, typing.Union) and len(options) > 1:
        tagged = {
            typing.get_args(field_types(typing.cast(Any, member))["kind"])[0]: member
            for member in options
            if dataclasses.is_dataclass(member)
        }
    found = _KnownType(kind, origin, arguments, dataclasses.is_dataclass(kind), options, tagged, take(kind))
    if len(_known_types) < _MOST_TYPES:
        _known_types[id(kind)] = found
    return found


def _union(known: _KnownType, value: Any, key: str) -> Any:
    options, tagged = known.options, known.tagged
    if value is None and len(options) < len(known.arguments):
        return None
    if len(options) == 1:
        return convert_value(options[0], value, key)
    if tagged:
        if not isinstance(value, Mapping):
            kinds = ", ".join(sorted(tagged))
            raise ConfigError(
                key, f"{shown(value)} is not a mapping; expected one whose kind is one of: {kinds}"
            )
        if "kind" not in value:
            raise ConfigError(child(key, "kind"), f"missing; expected one of: {', '.join(sorted(tagged))}")
        tag = value["kind"]
        if not isinstance(tag, str) or tag not in tagged:
            raise ConfigError(child(key, "kind"), f"{shown(tag)} is unknown{did_you_mean(str(tag), tagged)}")
        return _dataclass(tagged[tag], value, key)
    for option in options:
        try:
            return convert_value(option, value, key)
        except RangeError:  # a number, as it should be
            raise
        except ConfigError:
            continue
    raise ConfigError(key, f"{shown(value)} is not {' or '.join(_expected(option) for option in options)}")


def _mapping(kinds: tuple[Any, ...], value: Any, key: str) -> dict[Any, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(
            key, f"{shown(value)} is not a mapping; expected entries under names, as in {{a: …}}"
        )
    name_kind, item_kind = kinds
    if any(isinstance(name, str) and not name.strip() for name in value):
        raise ConfigError(key, "one of its names is empty; expected a name for each entry")
    taking_name, taking = _taking(name_kind), _taking(item_kind)
    found = {}
    for name, item in value.items():
        known, taken = taking_name(name), taking(item)
        if known is OTHER:
            known = convert_value(name_kind, name, child(key, name))
        found[known] = convert_value(item_kind, item, child(key, name)) if taken is OTHER else taken
    return found


def _scalar(kind: Any, value: Any, key: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value, key)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if type(value) is kind:
        if isinstance(value, str):
            _require_printable(value, key)
        return value
    if value is None:
        raise ConfigError(key, f"null is not allowed; expected {_expected(kind)}")
    if isinstance(value, str) and _would_be(kind, value.strip()):
        raise ConfigError(key, f"{shown(value)} is text; expected {_expected(kind)}, so leave out the quotes")
    raise ConfigError(key, f"{shown(value)} is not {_expected(kind)}")


def _require_printable(text: str, key: str) -> None:
    """Raise ConfigError for an empty name, and for control characters, which no table can show."""
    if text.isprintable() and text and not text.isspace():
        return
    if not text.strip() and key.rpartition(".")[2] == "name":
        raise ConfigError(key, "empty; expected a name")
    allowed = "" if key.rpartition(".")[2] == "name" else "\n\t"
    if any(ord(letter) < 32 and letter not in allowed for letter in text):
        raise ConfigError(key, f"{shown(text)} has a control character; expected text that can be printed")


def _would_be(kind: Any, text: str) -> bool:
    """Tell whether a text would be of the type if it had no quotes."""
    if kind is bool:
        return text.lower() in ("true", "false")
    try:
        return kind in (int, float) and math.isfinite(kind(text))
    except ValueError:
        return False


def _finite(value: float, key: str) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise ConfigError(key, "nan is not a number")
    if math.isinf(number):
        raise RangeError(key, f"{shown(value)} is out of range; expected a finite number", 0.0)
    return number


def _expected(kind: Any) -> str:
    if kind in _TYPE_WORDS:
        return _TYPE_WORDS[kind]
    origin = typing.get_origin(kind)
    if origin is typing.Annotated and isinstance(typing.get_args(kind)[1], Range):
        return _TYPE_WORDS[typing.get_args(kind)[0]]
    if origin is typing.Literal:
        return "one of " + ", ".join(str(option) for option in typing.get_args(kind))
    if origin in (types.UnionType, typing.Union):
        return " or ".join("null" if arg is type(None) else _expected(arg) for arg in typing.get_args(kind))
    if dataclasses.is_dataclass(kind) or origin in (dict, typing.Annotated):
        return "a mapping"
    return "a list" if origin is tuple else "a value"


def _options(value: Any, options: tuple[Any, ...]) -> str:
    if isinstance(value, str):
        return did_you_mean(value, [str(option) for option in options])
    return "; expected one of: " + ", ".join(str(option) for option in options)


@functools.cache
def _fields(cls: Any) -> dict[str, dataclasses.Field[Any]]:
    """Return the fields of a dataclass that a configuration sets, by name."""
    return {field.name: field for field in _given(cls)}


def _given(cls: Any) -> list[dataclasses.Field[Any]]:
    """Return the fields of a dataclass that a configuration sets."""
    return [field for field in dataclasses.fields(cls) if field.init and not field.metadata.get("internal")]


def _keys(cls: type[Any]) -> str:
    return ", ".join(field.name for field in _given(cls))


def shown(value: Any) -> str:
    """Return ``value`` as YAML for a message, cut if it is long."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
