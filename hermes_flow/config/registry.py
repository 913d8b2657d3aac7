"""Named variants (stage kinds, arrival processes, length distributions, policies): one decorator each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any, Generic, TypeVar

from hermes_flow.config.convert import child, convert, shown
from hermes_flow.errors import ConfigError, did_you_mean

T = TypeVar("T")
C = TypeVar("C", bound=type[Any])


class Registry(Generic[T]):
    """Classes by name. ``noun`` is what an entry is, ``tag`` the config key that names one.

    arrival_processes: Registry[ArrivalProcess] = Registry("arrival process", tag="process")

    @arrival_processes.register("poisson")
    @dataclass(frozen=True, slots=True)
    class Poisson: ...

    A class whose keys are not its fields has a class method ``from_config(given, key)``.
    """

    def __init__(self, noun: str, tag: str) -> None:
        self.noun = noun
        self.tag = tag
        self._classes: dict[str, type[Any]] = {}

    def register(self, name: str) -> Callable[[C], C]:
        """Return a class decorator that makes the class known as ``name``."""

        def add(cls: C) -> C:
            if name in self._classes:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self._classes[name] = cls
            return cls

        return add

    @property
    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._classes)

    def find(self, name: Any, key: str) -> type[Any]:
        """Return the class called ``name``; raises ConfigError at ``key`` where there is none."""
        if not isinstance(name, str) or name not in self._classes:
            raise ConfigError(
                key, f"unknown {self.noun} {shown(name)}{did_you_mean(str(name), self._classes)}"
            )
        return self._classes[name]

    def parse(self, value: Any, key: str) -> T:
        """Return the variant that ``value`` describes: ``{tag: name, **fields}``, or just a name.

        The class must be a dataclass; its fields are the other keys allowed. Raises ConfigError.
        """
        if isinstance(value, str):
            self.find(value, key)
            value = {self.tag: value}
        if not isinstance(value, Mapping):
            raise ConfigError(key, f"{shown(value)} is not a mapping with the key {self.tag!r}")
        if self.tag not in value:
            raise ConfigError(child(key, self.tag), f"missing; expected one of: {', '.join(self.names)}")
        cls = self.find(value[self.tag], child(key, self.tag))
        given = {name: entry for name, entry in value.items() if name != self.tag}
        make = getattr(cls, "from_config", None)
        for name in given if make is None else ():
            others = self._with_key(name)
            if others and value[self.tag] not in others:
                raise ConfigError(child(key, name), f"unknown key; it is a key of {', '.join(others)}")
        try:
            parsed: T = convert(cls, given, key) if make is None else make(given, key)
        except ConfigError as error:
            if error.key == key or error.key.startswith(f"{key}."):
                raise
            # A class that checks its own figures knows their names, not where they stand.
            raise ConfigError(child(key, error.key), error.problem) from None
        return parsed

    def describe(self, variant: T) -> str:
        """Return the variant's name, with the settings that differ from their defaults in parentheses."""
        names = {cls: name for name, cls in self._classes.items()}
        settings = [
            f"{field.name}={getattr(variant, field.name)}"
            for field in fields(type(variant))  # type: ignore[arg-type]
            if field.default is MISSING or getattr(variant, field.name) != field.default
        ]
        name = names[type(variant)]
        return f"{name} ({', '.join(settings)})" if settings else name

    def _with_key(self, name: Any) -> list[str]:
        return [entry for entry in self.names if name in (f.name for f in fields(self._classes[entry]))]
