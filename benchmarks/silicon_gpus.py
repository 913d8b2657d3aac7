"""The GPUs of the benchmark runs: their architecture, and which of them have the constants of another."""

from __future__ import annotations

# Engines choose kernels, page sizes and the precision of KV by architecture
BLACKWELL = ("b200_sxm", "b300_sxm", "gb200", "gb300")
# GPUs of which neither kernels nor serving runs were used for any constant, and the one whose constants they have
SIBLINGS = {"b300_sxm": "b200_sxm", "gb200": "b200_sxm", "gb300": "b200_sxm"}
RACK = 72  # GPUs of one NVLink domain (GB200 NVL72, GB300 NVL72), whatever trays they are on
DEVICES_OF_A_NODE = {"gb200": RACK, "gb300": RACK}  # of the others 8


def constants_of(system: str) -> str:
    """Return the GPU whose fitted constants a GPU has."""
    return SIBLINGS.get(system, system)


def devices_of_a_node(system: str) -> int:
    """Return the devices that are connected by NVLink."""
    return DEVICES_OF_A_NODE.get(system, 8)
