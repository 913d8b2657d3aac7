"""Redundant experts: copies of the most chosen ones, so that devices with whole experts have alike loads.

They lie as DeepSeek's load balancer lays them out by its global policy (github.com/deepseek-ai/EPLB, eplb.py,
replicate_experts and balanced_packing): each copy goes to the expert whose copies have the most load each; then all
copies, the most loaded first, go to the device with the least load that has a free slot. Every device has as many
slots. The load of an expert is known here, as if it had been counted for long: the share of tokens that choose it.
"""

from __future__ import annotations

import heapq

import numpy as np

from hermes_flow.config.schema import Experts
from hermes_flow.cost.operators import Floats
from hermes_flow.program.same_bits import power, total


def copies_of(chosen: Floats, redundant: int) -> Floats:
    """Return the probability that a token reaches each copy, the most likely first.

    ``chosen`` has the probability that it chooses each expert, whose copies take turns.
    """
    heap = [(-float(share), place, 1) for place, share in enumerate(chosen)]
    heapq.heapify(heap)
    for _ in range(redundant):
        share, place, copies = heap[0]
        heapq.heapreplace(heap, (share * copies / (copies + 1), place, copies + 1))
    return np.array(sorted((-share for share, _, copies in heap for _ in range(copies)), reverse=True))


def packed(copies: Floats, devices: int) -> list[list[float]]:
    """Return the copies on each of the devices, which have as many slots; ``copies`` are in order of their load."""
    slots = len(copies) // devices
    held: list[list[float]] = [[] for _ in range(devices)]
    free = [(0.0, device) for device in range(devices)]
    for share in copies.tolist():
        load, device = heapq.heappop(free)
        held[device].append(share)
        if len(held[device]) < slots:
            heapq.heappush(free, (load + share, device))
    return held


def fullest_load(copies: Floats, devices: int) -> float:
    """Return how many experts of the device with the most load a token reaches on average."""
    return max(total(np.array(shares)) for shares in packed(copies, devices))


def distinct_copies(experts: Experts, redundant: int, tokens: Floats) -> Floats:
    """Return how many copies so many tokens reach on average under uniform routing, on all devices together."""
    share = experts.per_token / experts.count
    if not redundant:
        alone: Floats = experts.count * (1.0 - power(1.0 - share, tokens))
        return alone
    copies = copies_of(np.full(experts.count, share), redundant)
    found = np.zeros_like(tokens)
    for each, count in zip(*np.unique(copies, return_counts=True), strict=True):
        found += count * (1.0 - power(1.0 - each, tokens))
    return found
