"""A CPU host as searches see it: cores, memory bandwidth, and what one core was measured to reach."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.convert import child
from hermes_flow.config.retrieval import MemoryLevel, RetrievalEfficiency
from hermes_flow.errors import ConfigError

_NS = 1e-9
_GB = 1e9
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
        """What all cores together reach of the memory bandwidth, in bytes/s."""
        return self.bandwidth * self.efficiency.bandwidth_fraction

    def scan_s(self, size: float, footprint: float, whole: bool) -> float:
        """Return the seconds one core takes to read ``size`` bytes in order, and to compute with them.

        They are part of a structure of ``footprint`` bytes, or all of it, time and again (``whole``).
        """
        return sum(
            share * size / (level.scan_gb_s * _GB) for level, share in self._shares(footprint, whole)
        )

    def gather_s(self, rows: float, row_bytes: float, footprint: float) -> float:
        """Return the seconds one core takes to read rows anywhere in ``footprint`` bytes.

        Raises ConfigError where the host's figure is unknown.
        """
        total = 0.0
        for level, share in self._shares(footprint, whole=False):
            if level.random_ns is None:
                raise ConfigError(
                    child(self.key, "levels"),
                    "a level has no random_ns; rows at random addresses (hnsw, rerank) need it",
                )
            rate = level.random_gb_s or level.scan_gb_s
            total += share * rows * (level.random_ns * _NS + row_bytes / (rate * _GB))
        return total

    def memory_share(self, footprint: float, whole: bool) -> float:
        """Return which share of what is read of ``footprint`` bytes comes from memory, past all caches."""
        return sum(share for level, share in self._shares(footprint, whole) if level.fits_mb is None)

    def required(self, name: str) -> float:
        """Return a figure of the host that may be null; raises ConfigError where it is."""
        value: float | None = getattr(self.efficiency, name)
        if value is None:
            raise ConfigError(child(self.key, name), "null; this search needs the figure")
        return value

    def _shares(self, footprint: float, whole: bool) -> list[tuple[MemoryLevel, float]]:
        """Return which share of the bytes read is found in each level, the nearest first.

        What is read anywhere is in a cache with the chance that its share of the footprint fits. What is read
        from end to end is evicted before it is read again, unless all of it fits.
        """
        found = []
        covered = 0.0
        for level in self.efficiency.levels.values():
            fits = 1.0 if level.fits_mb is None else min(1.0, level.fits_mb * _MB / footprint)
            reached = float(fits >= 1.0) if whole else fits
            if reached > covered:
                found.append((level, reached - covered))
                covered = reached
        return found
