"""The times of exchanges between devices that do not fit one node."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.config.schema import AllReduceFit, Hardware, Network
from hermes_flow.errors import ConfigError
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import BYTES_PER_GB, S_PER_US

Floats = NDArray[np.float64]
# source: measured by the authors of nccl-tests, 46 to 48 of 50 GB/s for each network card (issue 290)
FRACTION = 0.94
# source: latencies by which NCCL chooses its algorithm (src/graph/tuning.cc, version 2.20 on): the tree with the
# protocol LL starts after the first, and goes up and down over the others, one for each device of a node and for each
# doubling of the nodes. 25.2 µs for two nodes of eight, which its log printed for 128 bytes (NVIDIA/nccl, issue 1453)
TREE_US, NODE_HOP_US, NETWORK_HOP_US = 6.8, 0.6, 5.0
# source: least squares over the published times of DeepEP's low-latency kernels (DeepEP/docs/legacy.md of version
# 2: 128 tokens of 7,168 values to 8 experts, 16 to 256 devices on cards of 50 GB/s), with FRACTION given: 3 % off on
# average, at most 10 % (combine of 128 devices)
EXCHANGE_US = 39.0


@dataclass(frozen=True, slots=True)
class NodeLinks:
    """The nodes of a network, as one client sees them: ``devices`` in each, and each device's link to other nodes.

    ``gb_s`` is None where it is not known, and ``latency_us`` comes on top of each exchange.
    """

    devices: int
    gb_s: float | None
    latency_us: float = 0.0

    @classmethod
    def of(cls, network: Network, hardware: Hardware) -> NodeLinks:
        """Return the nodes of the network with the links of this hardware, unless the network has its own."""
        line = network.rack.gb_s or hardware.network_gb_s
        usable = None if line is None else line * min(FRACTION, network.rack.efficiency)
        return cls(network.devices_per_node, usable, network.rack.latency_us)

    def all_reduce_s(self, size: Floats, devices: int, within: AllReduceFit, scale_up_gb_s: float) -> Floats:
        """Return the seconds of an all-reduce of ``size`` bytes among ``devices`` of several nodes.

        Rings go through all devices, so the slower of the links within a node and of all network cards of a node
        together paces them. ``within`` is the fit of the all-reduce of a whole node.
        """
        nodes = -(-devices // self.devices)
        start_us = TREE_US + 2.0 * (
            (self.devices - 1) * NODE_HOP_US + (nodes - 1).bit_length() * NETWORK_HOP_US
        )
        rate = min(within.fraction * scale_up_gb_s, self.devices * self.rate()) * BYTES_PER_GB
        seconds: Floats = (start_us + self.latency_us) * S_PER_US + 2.0 * (
            devices - 1
        ) / devices * size / rate
        return seconds

    def exchange_s(self, size: Floats, devices: int) -> Floats:
        """Return the seconds of an all-to-all among ``devices`` of several nodes; each has ``size`` bytes for all."""
        crossing = (devices - self.devices) / devices * size
        start_us = EXCHANGE_US + self.latency_us
        seconds: Floats = start_us * S_PER_US + crossing / (self.rate() * BYTES_PER_GB)
        return seconds

    def rate(self) -> float:
        """Return the GB/s of one device to other nodes; only for links that are known."""
        assert self.gb_s is not None
        return self.gb_s

    def check(self, key: str, purpose: str) -> None:
        """Raise ConfigError at the hardware's ``key`` where the link to other nodes is not known."""
        if self.gb_s is None:
            raise ConfigError(
                f"{key}.network_gb_s", f"null; {purpose} over several nodes needs it, or network.rack.gb_s"
            )
