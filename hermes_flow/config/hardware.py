"""The keys of one accelerator or CPU host."""

from __future__ import annotations

from typing import Annotated, Literal

from hermes_flow.config.hardware_measurements import Efficiency, EnergyFit, EngineOverhead
from hermes_flow.config.quantities import GB, USD, Count, Factor, GBPerSecond, PositiveGB, Range, Tera, Watts
from hermes_flow.config.retrieval import RetrievalEfficiency
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Torus:
    """A torus of accelerators that have links to their neighbours only, such as TPUs.

    A client is a slice of it. A slice whose axes all have at least ``ring`` chips is itself a torus; the lines of
    smaller ones are open at their ends.
    """

    axes: Annotated[int, Range(1, 3)]
    """The number of axes. Each chip has two links along each of them."""
    ring: Annotated[int, Range(3, 1_000_000)]
    """The chips along each axis from which on the ends of its lines are joined."""


@dataclass(frozen=True, slots=True)
class Hardware:
    """One accelerator or one CPU host, as its datasheet gives it, and what was measured on it.

    A null figure is unknown; a cost model that needs it says so. Where the peak of a precision narrower than bf16 is
    null, nothing computes in that precision. ``memory_gb`` is the datasheet's figure, ``usable_gb`` what the driver
    reports to a process (null: as the datasheet); an engine takes a fraction of the latter, and of that weights and
    ``reserved_gb`` (per device) are not available for KV.
    """

    name: str
    """The name of the hardware in tables."""
    kind: Literal["gpu", "asic", "cpu"]
    """An accelerator (``gpu``, ``asic``), or a host (``cpu``)."""
    memory_gb: PositiveGB
    bandwidth_gb_s: GBPerSecond
    """The bandwidth of the memory."""
    peak_tflops_bf16: Tera | None = None
    """The peak of dense matrix products in bf16, in 10¹² operations per second."""
    peak_tflops_fp8: Tera | None = None
    """The peak in fp8, in 10¹² operations per second."""
    peak_tops_int8: Tera | None = None
    """The peak in int8, in 10¹² operations per second."""
    peak_tops_int4: Tera | None = None
    """The peak in int4, in 10¹² operations per second."""
    peak_tflops_fp4: Tera | None = None
    """The peak in fp4 with scales (nvfp4, mxfp4), in 10¹² operations per second."""
    peak_tflops_fp32: Tera | None = None
    """The peak of vector operations in fp32, in 10¹² operations per second."""
    scale_up_gb_s: GBPerSecond | None = None
    """The bandwidth of one device to the others of its node, in one direction; with ``torus`` that of one link."""
    scale_up_devices: Count | None = None
    """How many devices this link connects (72 in an NVL72); null is 8. Nodes of another size are a warning."""
    torus: Torus | None = None
    """The links where devices are connected to their neighbours only; null where each reaches all others."""
    network_gb_s: GBPerSecond | None = None
    """The bandwidth of one device to other nodes, in one direction."""
    host_link_gb_s: GBPerSecond | None = None
    """The bandwidth between one device and the memory of its host, in one direction."""
    usable_gb: PositiveGB | None = None
    power_w: Watts | None = None
    """The most power that one device draws."""
    usd_per_hour: USD | None = None
    """The price of one device; null takes the price of ``prices``, if it lists one."""
    cores: Count | None = None
    """The number of cores of a host."""
    reserved_gb: GB | None = None
    """The memory of one device that is not available for weights and KV. Null computes it for a GPU from its parts:
    work spaces, communication, position tables, images, and the largest step (docs/cost.md).
    """
    maker: str | None = None
    """Who makes it. Error bars know of which makers accelerators were measured; null is as a measured one."""
    efficiency: Efficiency | None = None
    """What kernels reach of the peaks; null where nobody has measured it."""
    overheads_of: str | None = None
    """The entry of the engine's ``overheads`` that holds here. Null takes only the figures of the hardware's own key
    ``engine``.
    """
    launching: Factor = 1.0
    """How long the host of this hardware takes to launch a kernel, as a multiple of that time on the hardware whose
    overheads it has. It lengthens the launches of steps without CUDA graphs (``engine.eager``).
    """
    engine: EngineOverhead | None = None
    """What the serving engine adds to the kernels on this hardware. With ``overheads_of`` it may be left out, or it
    changes single figures of those overheads. Null where nobody has measured it.
    """
    energy: EnergyFit | None = None
    """What the hardware draws while it works; null where nobody has measured it."""
    retrieval: RetrievalEfficiency | None = None
    """What vector search reaches on the cores of this host; null where nobody has measured it."""
