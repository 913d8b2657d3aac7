"""The sources of an LLM client's step times, from which the error of a prediction is known."""

from __future__ import annotations

from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """The sources of an LLM client's step times.

    ``cost`` and ``engine`` are names, ``kind`` is that of the hardware (``gpu``, ``asic``, ``cpu``). ``figures`` are
    those of the hardware's datasheet by which it is known again whatever its name is (GB/s and 10¹² operations per
    second, None where unknown). ``kernels_of`` is the hardware whose kernels were measured: its own name, that of a
    sibling, or None where the mean of all measured ones stands in. ``shape`` are the layers, the width and the
    billions of parameters of the model. ``mixture`` tells whether it has experts. ``special`` names in words what few
    measured runs have, ``maker`` who makes the hardware.
    """

    cost: str
    engine: str
    hardware: str
    kind: str
    figures: tuple[float | None, ...]
    kernels_of: str | None
    model: str
    shape: tuple[float, ...]
    mixture: bool
    special: tuple[str, ...] = ()
    maker: str | None = None
