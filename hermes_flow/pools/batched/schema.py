"""The keys of a pool whose clients serve several tasks in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from hermes_flow.config.failures import Failures
from hermes_flow.config.quantities import Count, Milliseconds, Sequences
from hermes_flow.config.schema import Hardware, Model


@dataclass(frozen=True, slots=True)
class BatchedPool:
    """``count`` identical clients that gather what waits, up to ``max_batch`` tasks, and serve it in one pass.

    A pass that is not full begins when its first task has waited ``wait_ms``. ``model`` is the encoder that embeds or
    reranks. With ``host``, the name of another pool, client i is on the machine of that pool's client i modulo its
    count, and they share the memory's bandwidth.
    """

    kind: Literal["batched"]
    serves: tuple[str, ...]
    """The kinds of stages that the pool serves."""
    hardware: Hardware
    """The machine of one client; null takes the hardware chosen for the whole configuration."""
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
    model: Model | None = None
    tensor_parallel: Count = 1
    """The devices that every matrix is cut over."""
    cores: Count | None = None
    """The cores that a client on a host has; null takes all."""
    cost: dict[str, Any] | None = None
    """How long its forward passes take: a cost model with its settings. Null takes the
    choice of the whole configuration.
    """
    max_batch: Sequences = 32
    wait_ms: Milliseconds = 0.0
    host: str | None = None

    @property
    def devices(self) -> int:
        """Accelerators of one client; 0 on a CPU host."""
        return 0 if self.hardware.kind == "cpu" else self.tensor_parallel

    @property
    def model_name(self) -> str | None:
        """The encoder, where there is one."""
        return None if self.model is None else self.model.name
