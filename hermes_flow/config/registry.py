"""Registers variants by name: stage kinds, arrival processes, length distributions and policies."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from hermes_flow.config.convert import child, convert, shown
from hermes_flow.config.plugin_faults import mark_plugin
from hermes_flow.config.plugins import load_entry_points
from hermes_flow.errors import ConfigError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Classes by name. ``noun`` describes an entry, and ``tag`` is the config key that names one.

    A class that lacks one of ``methods`` is refused when it is registered. Those built in are modules of ``package``,
    each of the name it registers, and imported when they are asked for.
    With ``module`` they are folders of the package, and that is the module of each which registers.

    arrival_processes: Registry[ArrivalProcess] = Registry("arrival process", tag="process")

    @arrival_processes.register("poisson")
    @dataclass(frozen=True, slots=True)
    class Poisson: ...

    A class whose keys are not its fields has a class method ``from_config(given, key)``.
    """

    def __init__(
        self,
        noun: str,
        tag: str,
        package: str | None = None,
        module: str | None = None,
        methods: tuple[str, ...] = (),
    ) -> None:
        self.noun = noun
        self.tag = tag
        self._package = package
        self._module = module
        self._methods = methods
        self._classes: dict[str, type[Any]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that makes the class known as ``name``."""

        def add(cls: C) -> C:
            if not cls.__module__.startswith(f"{self._package}."):
                self._import_built_in(name)
            if not cls.__module__.startswith("hermes_flow."):
                module = sys.modules[cls.__module__]
                mark_plugin(module.__dict__, f"the {self.noun} {name!r}", cls.__qualname__)
            lacking = [method for method in self._methods if not hasattr(cls, method)]
            if lacking:
                raise TypeError(f"{cls.__name__}, {_a(self.noun)}, has no {' and no '.join(lacking)}")
            if name in self._classes and _is_defined(self._classes[name]):
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    @property
    def names(self) -> list[str]:
        """The registered names, sorted."""
        if self._package is not None:
            for module in pkgutil.iter_modules(importlib.import_module(self._package).__path__):
                if self._module is None or module.ispkg:
                    importlib.import_module(self._built_in(module.name))
        return sorted(self._classes)

    def find(self, name: Any, key: str, others: Iterable[str] = ()) -> type[Any]:
        """Return the class called ``name``, from an installed plug-in if necessary.

        Raises ConfigError at ``key``, which names what is valid: these names and ``others``.
        """
        if isinstance(name, str) and name not in self._classes:
            self._look_for(name)
        if not isinstance(name, str) or name not in self._classes:
            valid = [*self.names, *others]
            raise ConfigError(key, f"unknown {self.noun} {shown(name)}{did_you_mean(str(name), valid)}")
        return self._classes[name]

    def parse(self, value: Any, key: str) -> T:
        """Return the variant that ``value`` describes: ``{tag: name, **fields}``, or just a name.

        The class must be a dataclass; its fields are the other keys allowed. Raises ConfigError.
        """
        if isinstance(value, str):
            self.find(value, key)
            value = {self.tag: value}
        if not isinstance(value, Mapping):
            raise ConfigError(
                key, f"{shown(value)} is not a mapping whose {self.tag} is one of: {', '.join(self.names)}"
            )
        if self.tag not in value:
            raise ConfigError(child(key, self.tag), f"missing; expected one of: {', '.join(self.names)}")
        cls = self.find(value[self.tag], child(key, self.tag))
        given = {name: entry for name, entry in value.items() if name != self.tag}
        make = getattr(cls, "from_config", None)
        known = [] if make is not None else _settings(cls)
        for name in given if make is None else ():
            others = [] if name in known else self._with_key(name)
            if others:
                raise ConfigError(child(key, name), f"unknown key; it is a key of {', '.join(others)}")
        try:
            if make is None:
                make = partial(convert, cls) if is_dataclass(cls) else partial(_without_settings, cls)
            parsed: T = make(given, key)
        except ConfigError as error:
            if error.key == key or error.key.startswith(f"{key}."):
                raise
            # A class that checks its own figures knows their names, not where they stand.
            raise ConfigError(child(key, error.key), error.problem) from None
        return parsed

    def describe(self, variant: T) -> str:
        """Return the variant's name, with the settings that differ from their defaults in parentheses."""
        settings = [
            f"{field.name}={getattr(variant, field.name)}"
            for field in (fields(variant) if is_dataclass(variant) else ())
            if field.init and (field.default is MISSING or getattr(variant, field.name) != field.default)
        ]
        name = self.name_of(variant)
        return f"{name} ({', '.join(settings)})" if settings else name

    def name_of(self, variant: T) -> str:
        """Return the name that the variant's class is registered by."""
        (name,) = (name for name, cls in self._classes.items() if cls is type(variant))
        return name

    def _look_for(self, name: str) -> None:
        """Import the module that registers ``name``: the built-in one, or what installed packages offer."""
        self._import_built_in(name)
        if name not in self._classes:
            load_entry_points()

    def _import_built_in(self, name: str) -> None:
        if self._package is not None and name.isidentifier():
            module = self._built_in(name)
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                if error.name not in (module, f"{self._package}.{name}"):
                    raise

    def _built_in(self, name: str) -> str:
        return f"{self._package}.{name}" if self._module is None else f"{self._package}.{name}.{self._module}"

    def _with_key(self, name: Any) -> list[str]:
        return [entry for entry in self.names if name in _settings(self._classes[entry])]


def _is_defined(cls: type[Any]) -> bool:
    """Return whether the module of a class still has it; a plug-in that fails and is loaded again has not."""
    module = sys.modules.get(cls.__module__)
    return "<locals>" in cls.__qualname__ or getattr(module, cls.__name__, None) is cls


def _settings(cls: type[Any]) -> list[str]:
    """Return the names of the class's settings: the fields of a dataclass that can be given."""
    return [field.name for field in fields(cls) if field.init] if is_dataclass(cls) else []


def _without_settings(cls: type[Any], given: Mapping[str, Any], key: str) -> Any:
    """Return an object of a class that is no dataclass; raises ConfigError where settings are given."""
    for name in given:
        raise ConfigError(
            child(key, name), f"unknown key; {cls.__name__} is not a dataclass and has no settings"
        )
    return cls()


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"
