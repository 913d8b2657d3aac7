"""The registry of kinds of pools, and the keys that every pool has.

A kind is a folder of hermes_flow/pools, which is above the configuration: its ``schema`` module is imported when a
configuration names it, and its ``kind`` module when such a pool is compiled (see hermes_flow/pools/kind.py for what a
kind offers to the rest).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hermes_flow.config.convert import child, convert, shown
from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError

if TYPE_CHECKING:
    from hermes_flow.config.hardware import Hardware

_SCHEMA = "schema"


class PoolConfig(Protocol):
    """The keys of a pool that do not depend on its kind; each kind adds its own."""

    @property
    def kind(self) -> str:
        """The name of its kind."""

    @property
    def serves(self) -> tuple[str, ...]:
        """The kinds of stages that it serves."""

    @property
    def hardware(self) -> Hardware | None:
        """The machine of one client; None if it is not known."""

    @property
    def count(self) -> int:
        """Number of identical clients."""

    @property
    def routing(self) -> dict[str, Any] | str | None:
        """The routing among the clients; None: as the cluster sets it."""

    @property
    def if_needed(self) -> bool:
        """Whether it is left out if other pools of the cluster serve all its stages."""

    @property
    def devices(self) -> int:
        """Accelerators of one client."""

    @property
    def model_name(self) -> str | None:
        """The name of its clients' model, by which requests and stages choose it."""

    @property
    def host(self) -> str | None:
        """The pool whose hosts its clients run on; None: on their own."""


class PoolSchema(Protocol):
    """The schema of a kind of pool, for the configuration."""

    schema: ClassVar[type[Any]]
    """The dataclass of its keys, ``kind`` among them.

    ``left_open`` may name groups that the pool may leave open, ``absent`` keys of other kinds, with why it has none.
    """


class PoolKinds(Registry[PoolSchema]):
    """The registry of kinds of pools, which also reads the configuration of one pool."""

    def config(self, value: Any, key: str) -> Any:
        """Return the pool that a mapping describes, as the dataclass of its kind. Raises ConfigError."""
        if not isinstance(value, Mapping):
            raise ConfigError(
                key, f"{shown(value)} is not a mapping; {child(key, 'count')} is the number of its clients"
            )
        if self.tag not in value:
            raise ConfigError(child(key, self.tag), f"missing; expected one of: {', '.join(self.names)}")
        schema = self.schema_of(value[self.tag], child(key, self.tag))
        for name in value:
            reason = self.why_absent(value[self.tag], str(name))
            if reason is not None:
                raise ConfigError(child(key, name), reason)
        return convert(schema, value, key)

    def schema_of(self, kind: Any, key: str) -> type[Any]:
        """Return the dataclass of a kind's keys. Raises ConfigError at ``key`` if there is no such kind.

        That of a built-in kind is the one with a field ``kind`` in the module ``schema`` of its folder. So the keys
        are known without the kind itself, which a command that only shows a configuration never imports.
        """
        if isinstance(kind, str) and kind.isidentifier() and kind not in self._classes:
            home = f"{self._package}.{kind}.{_SCHEMA}"
            try:
                module = importlib.import_module(home)
            except ModuleNotFoundError as error:
                if error.name not in (home, home.rpartition(".")[0]):
                    raise
            else:
                return next(_schemas(module))
        schema: type[Any] = self.find(kind, key).schema
        return schema

    def known_schema(self, kind: Any) -> type[Any] | None:
        """Return the dataclass of a kind's keys, None if there is no such kind."""
        if not isinstance(kind, str):
            return None
        try:
            return self.schema_of(kind, self.tag)
        except ConfigError:
            return None

    def why_absent(self, kind: Any, name: str) -> str | None:
        """Return why pools of a kind have no key of this name, if the kind gives a reason; else None."""
        absent: Mapping[str, str] = getattr(self.known_schema(kind), "absent", {})
        return f"a pool of kind {kind!r} has none; {absent[name]}" if name in absent else None


def _schemas(module: ModuleType) -> Iterator[type[Any]]:
    """Yield the dataclasses of a pool's keys that a module defines."""
    for thing in vars(module).values():
        own = isinstance(thing, type) and is_dataclass(thing) and thing.__module__ == module.__name__
        if own and any(field.name == "kind" for field in fields(thing)):
            yield thing


pool_kinds = PoolKinds("kind of pool", tag="kind", package="hermes_flow.pools", module="kind")
