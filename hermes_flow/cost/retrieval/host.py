"""A CPU host for searches: its cores, its memory bandwidth, and the measured speed of one core."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hermes_flow.config.convert import child
from hermes_flow.config.retrieval import MemoryLevel, RetrievalEfficiency
from hermes_flow.errors import ConfigError
from hermes_flow.program.units import BYTES_PER_GB, S_PER_NS

_MB = 1e6


@dataclass(frozen=True, slots=True)
class Host:
    """``bandwidth`` is the memory's, in bytes/s; ``key`` is the config key of the host's ``retrieval`` block."""

    key: str
    cores: int
    bandwidth: float
    efficiency: RetrievalEfficiency

    @property
    def usable_bandwidth(self) -> float:
        """The memory bandwidth that all cores together reach, in bytes/s."""
        return self.bandwidth * self.efficiency.bandwidth_fraction

    def scan_s(self, size: float, footprint: float) -> float:
        """Return the seconds one core takes with ``size`` bytes of vectors, in order, out of ``footprint``."""
        return math.fsum(
            share * size / (level.scan_gb_s * BYTES_PER_GB) for level, share in self._shares(footprint)
        )

    def gather_s(self, vectors: float, size: float, footprint: float) -> float:
        """Return the seconds to read vectors at given places; raises ConfigError if the figure is unknown."""
        return math.fsum(
            share
            * (
                vectors * level.gather_ns * S_PER_NS
                + size / (self._known(level, "gather_gb_s") * BYTES_PER_GB)
            )
            for level, share in self._shares(footprint)
        )

    def walk_s(self, vectors: float, size: float, footprint: float) -> float:
        """Return the seconds for vectors that lead to one another; raises ConfigError as ``gather_s`` does."""
        shares = self._shares(footprint)
        latency = math.fsum(share * self._known(level, "walk_ns") * S_PER_NS for level, share in shares)
        return vectors * latency + self.scan_s(size, footprint)

    def memory_share(self, footprint: float) -> float:
        """Return which share of the bytes read of ``footprint`` comes from memory, past all caches."""
        return math.fsum(share for level, share in self._shares(footprint) if level.fits_mb is None)

    def code_s(self, size: float) -> float:
        """Return the seconds for ``size`` bytes of codes; raises ConfigError where the figure is unknown."""
        rate = self.efficiency.code_gb_s
        if rate is None:
            raise ConfigError(child(self.key, "code_gb_s"), "null; a search of codes (ivf_pq) needs it")
        return size / (rate * BYTES_PER_GB)

    def _shares(self, footprint: float) -> list[tuple[MemoryLevel, float]]:
        """Return which share of the bytes read is found in each level, the nearest first.

        Of what is read here and there, a cache holds as much as fits in it.
        """
        found = []
        covered = 0.0
        for level in self.efficiency.levels.values():
            reached = 1.0 if level.fits_mb is None else min(1.0, level.fits_mb * _MB / footprint)
            if reached > covered:
                found.append((level, reached - covered))
                covered = reached
        return found

    def _known(self, level: MemoryLevel, name: str) -> float:
        value: float | None = getattr(level, name)
        if value is None:
            key = next(key for key, entry in self.efficiency.levels.items() if entry is level)
            raise ConfigError(
                child(child(child(self.key, "levels"), key), name), "null; this search needs it"
            )
        return value
