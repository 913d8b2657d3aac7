"""Kinds of pools by name, and the keys that every pool has.

A kind is a folder of hermes_flow/pools, which is above the configuration: its ``kind`` module is imported when a
configuration names it (see hermes_flow/pools/kind.py for what a kind offers to the rest).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from hermes_flow.config.convert import child, convert, shown
from hermes_flow.config.registry import Registry
from hermes_flow.errors import ConfigError

if TYPE_CHECKING:
    from hermes_flow.config.schema import Hardware


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
        """The machine of one client; None where it is not known."""

    @property
    def count(self) -> int:
        """Number of identical clients."""

    @property
    def routing(self) -> dict[str, Any] | str | None:
        """How tasks choose among the clients; None: as the cluster says."""

    @property
    def if_needed(self) -> bool:
        """Whether it is left out where other pools of the cluster serve all its stages."""

    @property
    def devices(self) -> int:
        """Accelerators of one client."""

    @property
    def model_name(self) -> str | None:
        """The model that its clients hold, by which requests and stages may ask for it."""

    @property
    def host(self) -> str | None:
        """The pool on whose machines its clients are; None: on their own."""


class PoolSchema(Protocol):
    """What the configuration needs of a kind of pool."""

    schema: ClassVar[type[Any]]
    """The dataclass of its keys, ``kind`` among them.

    ``left_open`` may name groups that the pool may leave open, ``absent`` keys of other kinds, with why it has none.
    """


class PoolKinds(Registry[PoolSchema]):
    """The registry of kinds of pools, which also reads the configuration of one pool."""

    def config(self, value: Any, key: str) -> Any:
        """Return the pool that a mapping describes, as the dataclass of its kind. Raises ConfigError."""
        if not isinstance(value, Mapping):
            raise ConfigError(key, f"{shown(value)} is not a mapping")
        if self.tag not in value:
            raise ConfigError(child(key, self.tag), f"missing; expected one of: {', '.join(self.names)}")
        kind = self.find(value[self.tag], child(key, self.tag))
        for name in value:
            reason = self.why_absent(value[self.tag], str(name))
            if reason is not None:
                raise ConfigError(child(key, name), reason)
        return convert(kind.schema, value, key)

    def why_absent(self, kind: Any, name: str) -> str | None:
        """Return why pools of a kind have no key of this name, where the kind says so; else None."""
        try:
            absent: Mapping[str, str] = getattr(self.find(kind, self.tag).schema, "absent", {})
        except ConfigError:
            return None
        return f"a pool of kind {kind!r} has none; {absent[name]}" if name in absent else None


pool_kinds = PoolKinds("kind of pool", tag="kind", package="hermes_flow.pools", module="kind")
