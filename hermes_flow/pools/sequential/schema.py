"""The keys of a pool of hosts that serve one task per core."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from hermes_flow.config.schema import Hardware


@dataclass(frozen=True, slots=True)
class SequentialPool:
    """``count`` identical hosts that serve tasks one per core, first come first served.

    ``host`` names a pool on whose machines they are; they read next to nothing of its memory.
    """

    devices: ClassVar[int] = 0
    model_name: ClassVar[None] = None
    kind: Literal["sequential"]
    serves: tuple[str, ...]
    hardware: Hardware
    count: int = 1
    routing: dict[str, Any] | str | None = None
    if_needed: bool = False
    cores: int | None = None
    host: str | None = None
