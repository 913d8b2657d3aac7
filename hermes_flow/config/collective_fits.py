"""The keys for measured times of all-reduces, all-gathers and reduce-scatters between the devices of a client."""

from __future__ import annotations

from hermes_flow.config.quantities import Microseconds, PositiveShare, Size
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class OneShotFit:
    """Every device reads what all others have: t = alpha_us + (g−1)·bytes/(fraction·one-way scale-up bandwidth)."""

    alpha_us: Microseconds
    """The fixed time of one all-reduce."""
    fraction: PositiveShare
    """The fraction of the scale-up bandwidth that it reaches."""


@dataclass(frozen=True, slots=True)
class TwoStageFit:
    """Messages of ``from_kb`` (1,024 bytes each) or more, which an engine reduces in two stages by a rule of its own.

    t is ``least_us``, or alpha_us + 2(g−1)/g·bytes/(fraction·one-way scale-up bandwidth) where that is more, also
    where another algorithm would be faster; NCCL takes what it is faster for.
    """

    from_kb: Size
    """The size from which the engine uses it, in 1,024 bytes."""
    least_us: Microseconds
    """The least time of one all-reduce."""
    alpha_us: Microseconds
    """The fixed time of one all-reduce of many bytes."""
    fraction: PositiveShare
    """The fraction of the scale-up bandwidth that it reaches."""


@dataclass(frozen=True, slots=True)
class LargeFit:
    """Messages of many MB: t = alpha_us + 2(g−1)/g·bytes/(fraction·one-way scale-up bandwidth), as NCCL has them."""

    alpha_us: Microseconds
    """The fixed time of one all-reduce."""
    fraction: PositiveShare
    """The fraction of the scale-up bandwidth that it reaches."""


@dataclass(frozen=True, slots=True)
class AllReduceFit:
    """t = alpha_us + 2(g−1)/g·bytes/(fraction·one-way scale-up bandwidth), or one shot or NCCL if that is faster."""

    alpha_us: Microseconds
    """The fixed time of one all-reduce."""
    fraction: PositiveShare
    """The fraction of the scale-up bandwidth that it reaches."""
    one_shot: OneShotFit | None = None
    """The fit of an all-reduce in one shot; null where the engine has none."""
    two_stage: TwoStageFit | None = None
    """The fit of larger messages that an engine reduces in two stages; null where it has no such rule."""
    nccl: LargeFit | None = None
    """The fit of large messages, for which an engine calls NCCL; null where it was not measured."""


@dataclass(frozen=True, slots=True)
class GatherFit:
    """An all-gather or a reduce-scatter: t = alpha_us + (g−1)/g·bytes/(fraction·one-way scale-up bandwidth).

    The bytes are those of all devices together.
    """

    alpha_us: Microseconds
    """The fixed time of one of them."""
    fraction: PositiveShare
    """The fraction of the scale-up bandwidth that it reaches."""
