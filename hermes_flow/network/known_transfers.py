"""Moves transfers whose beginnings are all known over the network, without events, as ``Fabric`` does.

A transfer that nothing else is under way with takes a time that depends on its size and its path alone. Wherever two
meet, the fabric itself shares the links among them.
"""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path
from hermes_flow.program.units import NEVER


def move_known(
    fabric: Fabric, begins: Sequence[int], paths: Sequence[Path], sizes: Sequence[int]
) -> list[int]:
    """Return when each transfer arrives; ``begins`` rise, and transfer ``i`` takes ``paths[i]`` with its bytes.

    The fabric must be idle, and none of its other transfers may ever take a link of these paths.
    """
    count = len(begins)
    arrivals = [0] * count
    starts = [*begins, NEVER]
    alone: dict[tuple[tuple[int, ...], int], _Alone] = {}

    def arrived(transfer: int, now_ns: int) -> None:
        arrivals[transfer] = now_ns

    usual = fabric.tell(arrived)
    place = 0
    while place < count:
        now, path, size = starts[place], paths[place], sizes[place]
        key = (path.links, size)
        known = alone.get(key)
        if known is None:
            known = alone[key] = _Alone(path, fabric.alone_ns(path, size))
        end = now + known.took_ns
        if end < starts[place + 1]:
            known.transfers += 1
            known.last_ns = end
            arrivals[place] = end + path.latency_ns
            place += 1
            continue
        fabric.send(path, size, place, now)
        place += 1
        while (at := fabric.next_ns()) < NEVER:
            if starts[place] <= at:
                fabric.send(paths[place], sizes[place], place, starts[place])
                place += 1
            else:
                fabric.fire(at)
    fabric.tell(usual)
    for (_, size), known in alone.items():
        if known.transfers:
            fabric.count_alone(known.path, size, known.took_ns, known.transfers, known.last_ns)
    return arrivals


class _Alone:
    """Transfers of one size over one path that were alone: the ns they take, how many, and the end of the last."""

    __slots__ = ("last_ns", "path", "took_ns", "transfers")

    def __init__(self, path: Path, took_ns: int) -> None:
        self.path = path
        self.took_ns = took_ns
        self.transfers = 0
        self.last_ns = 0
