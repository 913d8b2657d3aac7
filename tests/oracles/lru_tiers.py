"""Tiers of memory as plain lists, searched and shifted element by element: the least recently used come first."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class ListedTiers:
    """What one client keeps; ``tiers`` are lists of (key, tokens, bytes), ``capacities`` their bytes."""

    capacities: list[int]
    tiers: list[list[tuple[int, int, int]]] = field(default_factory=list)
    demoted: list[int] = field(default_factory=list)
    dropped: int = 0

    def __post_init__(self) -> None:
        self.tiers = [[] for _ in self.capacities]
        self.demoted = [0 for _ in self.capacities]

    def find(self, key: int) -> tuple[int, int, int]:
        for level, tier in enumerate(self.tiers):
            for entry in tier:
                if entry[0] == key:
                    tier.remove(entry)
                    tier.append(entry)
                    return level, entry[1], entry[2]
        return -1, 0, 0

    def put(self, key: int, tokens: int, size: int) -> None:
        for entry in self.tiers[0]:
            if entry[0] == key and entry[1] >= tokens:
                self.tiers[0].remove(entry)
                self.tiers[0].append(entry)
                return
        self.tiers = [[entry for entry in tier if entry[0] != key] for tier in self.tiers]
        moving = [(key, tokens, size)]
        for level, capacity in enumerate(self.capacities):
            out = []
            for entry in moving:
                self.tiers[level].append(entry)
                while sum(held[2] for held in self.tiers[level]) > capacity:
                    out.append(self.tiers[level].pop(0))
            moving = out
            if level + 1 < len(self.capacities):
                self.demoted[level] += len(moving)
        self.dropped += len(moving)
