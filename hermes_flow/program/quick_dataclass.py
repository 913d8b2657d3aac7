"""A decorator ``dataclass`` that does what that of the standard library does, in a tenth of its time.

The standard one compiles six functions for every class, and a command that begins with three hundred classes spends
a fifth of its time on them. Here the fields are those of the standard library, comparisons and texts are made of
closures, and ``__init__`` is compiled when the first object is made, which most classes of a short run never see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from operator import attrgetter
from reprlib import recursive_repr
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(*, frozen: bool = False, slots: bool) -> Callable[[type], type]:
        """Return the decorator of a class with slots, as ``dataclasses.dataclass`` with these options."""
        assert slots, "without slots, take the decorator of the standard library"
        return _frozen if frozen else _open


# Python 3.13 compiles all methods of a class at once. What this module replaces there is little, but the same.
_OWN = {
    "__init__",
    "__repr__",
    "__eq__",
    "__hash__",
    "__setattr__",
    "__delattr__",
    "__getstate__",
    "__setstate__",
}
_MISSING = dataclasses.MISSING


def _open(cls: type) -> type:
    return _made(cls, frozen=False)


def _frozen(cls: type) -> type:
    return _made(cls, frozen=True)


def _made(cls: type, frozen: bool) -> type:
    if _OWN & vars(cls).keys() or any(map(dataclasses.is_dataclass, cls.__mro__[1:])):
        return dataclasses.dataclass(frozen=frozen, slots=True)(cls)
    if not cls.__doc__:
        cls.__doc__ = cls.__name__  # otherwise a text is made of the signature
    cls = dataclasses.dataclass(init=False, repr=False, eq=False, slots=True)(cls)
    fields = dataclasses.fields(cls)
    options = vars(cls)["__dataclass_params__"]
    options.init = options.repr = options.eq = True
    methods: list[Callable[..., Any]] = [_init(cls, fields, frozen), _repr(fields), _eq(fields)]
    if frozen:
        options.frozen = True
        methods += [_hash(fields), *_refusals(cls, fields), *_states(fields)]
    else:
        cls.__hash__ = None  # type: ignore[assignment]
    for method in methods:
        method.__qualname__ = f"{cls.__qualname__}.{method.__name__}"
        setattr(cls, method.__name__, method)
    return cls


def _init(cls: type, fields: tuple[Any, ...], frozen: bool) -> Callable[..., None]:
    """Return an ``__init__`` that compiles the real one when it is called, and puts that in its place."""

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made = _compiled_init(cls, fields, frozen)
        cls.__init__ = made  # type: ignore[misc]
        made(self, *args, **kwargs)

    return __init__


def _compiled_init(cls: type, fields: tuple[Any, ...], frozen: bool) -> Callable[..., None]:
    parameters: list[str] = []
    body: list[str] = []
    names: dict[str, Any] = {"_MISSING": _MISSING, "_set": object.__setattr__}
    for field in sorted(fields, key=lambda field: field.kw_only):
        name, value = field.name, field.name
        given = name
        if field.default is not _MISSING:
            names[f"_default_{name}"] = field.default
            given = f"{name}=_default_{name}"
            value = name if field.init else f"_default_{name}"
        elif field.default_factory is not _MISSING:
            names[f"_make_{name}"] = field.default_factory
            given = f"{name}=_MISSING"
            value = f"_make_{name}()"
            if field.init:
                value += f" if {name} is _MISSING else {name}"
        elif not field.init:
            continue
        if field.init:
            if field.kw_only and "*" not in parameters:
                parameters.append("*")
            parameters.append(given)
        body.append(f"_set(self, {name!r}, {value})" if frozen else f"self.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        body.append("self.__post_init__()")
    text = f"def __init__({', '.join(['self', *parameters])}):\n  " + "\n  ".join(body or ["pass"])
    exec(text, names)
    made: Callable[..., None] = names["__init__"]
    made.__qualname__ = f"{cls.__qualname__}.__init__"
    made.__annotations__ = {field.name: field.type for field in fields if field.init} | {"return": None}
    return made


def _values(fields: list[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """Return a function that gives the values of ``fields`` as a tuple."""
    if len(fields) > 1:
        return attrgetter(*[field.name for field in fields])
    if not fields:
        return lambda self: ()
    value = attrgetter(fields[0].name)
    return lambda self: (value(self),)


def _repr(fields: tuple[Any, ...]) -> Callable[[Any], str]:
    names = [field.name for field in fields if field.repr]

    @recursive_repr()
    def __repr__(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _eq(fields: tuple[Any, ...]) -> Callable[[Any, Any], bool]:
    values = _values([field for field in fields if field.compare])

    def __eq__(self: Any, other: Any) -> bool:
        if other.__class__ is not self.__class__:
            return NotImplemented
        return values(self) == values(other)

    return __eq__


def _hash(fields: tuple[Any, ...]) -> Callable[[Any], int]:
    values = _values([each for each in fields if (each.compare if each.hash is None else each.hash)])

    def __hash__(self: Any) -> int:
        return hash(values(self))

    return __hash__


def _refusals(cls: Any, fields: tuple[Any, ...]) -> list[Callable[..., None]]:
    """Return the methods that refuse to change a frozen object."""
    names = frozenset(field.name for field in fields)

    def __setattr__(self: Any, name: str, value: Any) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: Any, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return [__setattr__, __delattr__]


def _states(fields: tuple[Any, ...]) -> list[Callable[..., Any]]:
    """Return the methods that copy and pickle a frozen object, whose slots nobody may set."""
    names = [field.name for field in fields]

    def __getstate__(self: Any) -> list[Any]:
        return [getattr(self, name) for name in names]

    def __setstate__(self: Any, state: list[Any]) -> None:
        for name, value in zip(names, state, strict=True):
            object.__setattr__(self, name, value)

    return [__getstate__, __setstate__]
