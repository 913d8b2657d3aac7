"""The links that collectives use where devices are the nodes of a torus, such as TPUs.

``scale_up_gb_s`` is then one link in one direction. A client of some chips is a slice of the torus, as compact as
their number allows. Each axis of a slice connects its chips in a line. The ends of the line are joined, and the slice
is itself a torus, if all its axes are as long as the hardware says.
"""

from __future__ import annotations

from hermes_flow.config.hardware import Hardware, Torus


def slice_of(torus: Torus, devices: int) -> tuple[int, ...]:
    """Return the chips along each axis of the most compact slice of so many chips, the shortest axis first."""
    best = min(_boxes(devices, torus.axes), key=lambda box: (sum(box), box[::-1]))
    return tuple(sorted(best))


def links(torus: Torus, devices: int) -> int:
    """Return how many links each chip of a slice can send over at once in an all-reduce.

    At the corner of a slice a chip has one neighbour along each axis, and two if the slice is a torus. No all-reduce
    is faster than this corner, which has to send all but its own share of the sums. One that cuts its data into
    parts, each of which takes the axes in another order, keeps all these links busy and is as fast.
    """
    box = slice_of(torus, devices)
    return (2 if _is_closed(torus, box) else 1) * sum(size > 1 for size in box)


def collective_gb_s(hardware: Hardware, devices: int) -> float | None:
    """Return the GB/s at which one device sends in an all-reduce among ``devices``; None where it is not known."""
    link = hardware.scale_up_gb_s
    if link is None or hardware.torus is None:
        return link
    return link * links(hardware.torus, devices)


def exchanged_share(hardware: Hardware, devices: int) -> float:
    """Return the bytes over one link, as a share of what a device has for all, that pace an all-to-all.

    In a torus that is the larger of two: what a corner sends over all its links, and what crosses the middle of the
    longest axis, where the chips of one half send half of their bytes to the other half.
    """
    share = (devices - 1) / devices
    if hardware.torus is None:
        return share
    box = slice_of(hardware.torus, devices)
    around = 2 if _is_closed(hardware.torus, box) else 1
    longest = box[-1]
    crossing = (longest // 2) * (longest - longest // 2) / longest / around
    return max(share / max(1, links(hardware.torus, devices)), crossing)


def torus_note(hardware: Hardware, devices: int) -> str:
    """Return what to say of the slice of a client with so many devices; empty without a torus or a neighbour."""
    if hardware.torus is None or hardware.scale_up_gb_s is None or devices < 2:
        return ""
    box, count = slice_of(hardware.torus, devices), links(hardware.torus, devices)
    shape = " × ".join(str(size) for size in box if size > 1) if max(box) < devices else f"a row of {devices}"
    kind = "a torus" if _is_closed(hardware.torus, box) else "a mesh, which is open at its ends"
    return (
        f"slice of {devices} chips: {shape}, {kind}; all-reduces use {count} of {2 * hardware.torus.axes} links of "
        f"{hardware.scale_up_gb_s:g} GB/s each way"
    )


def _boxes(devices: int, axes: int) -> list[tuple[int, ...]]:
    """Return all ways to arrange so many chips along so many axes."""
    if axes == 1:
        return [(devices,)]
    return [
        (first, *rest)
        for first in range(1, devices + 1)
        if devices % first == 0
        for rest in _boxes(devices // first, axes - 1)
    ]


def _is_closed(torus: Torus, box: tuple[int, ...]) -> bool:
    return min(box) >= torus.ring
