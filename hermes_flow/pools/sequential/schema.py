"""The keys of a pool of hosts that serve one task per core."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from hermes_flow.config.failures import Failures
from hermes_flow.config.quantities import Count
from hermes_flow.config.schema import Hardware
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class SequentialPool:
    """``count`` identical hosts that serve tasks one per core, first come first served.

    ``host`` names a pool on whose machines they are; they read next to nothing of its memory.
    """

    devices: ClassVar[int] = 0
    model_name: ClassVar[None] = None
    kind: Literal["sequential"]
    serves: tuple[str, ...]
    """The kinds of stages that the pool serves."""
    hardware: Hardware
    """The host."""
    count: Count = 1
    routing: dict[str, Any] | str | None = None
    """How tasks choose among the clients: the name of a routing policy, or a mapping with its settings. Null is as
    ``cluster.routing``.
    """
    autoscale: dict[str, Any] | str | None = None
    """Starts and stops clients while the system runs: a scaling policy with its settings, and the keys of
    ``autoscale`` below. Null keeps ``count`` clients.
    """
    failures: Failures | None = None
    """Lets clients fail; null for none."""
    site: dict[str, Count] | str | None = None
    """Where the clients stand, with ``cluster.sites``: a site, or the number of clients by site; null: ``count`` at
    every site.
    """
    if_needed: bool = False
    """True leaves the pool out where other pools serve all that it would."""
    cores: Count | None = None
    """The cores of one client; null takes all that the hardware has."""
    host: str | None = None
    shares_device_with: str | None = None
    """The pool with whose clients its own take turns on one device: client i with that pool's client i modulo its
    count. Null gives them devices of their own.
    """
