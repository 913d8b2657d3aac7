"""Finds the measured attention shape for a model: the same KV heads, and as many or more query heads."""

from __future__ import annotations

import numpy as np

from hermes_flow.cost.kernels.curve import Findings
from hermes_flow.cost.kernels.table import Table, problem


def measured_heads(
    table: Table, shape: tuple[int, int, int], findings: Findings, *, split: bool
) -> tuple[Table, float]:
    """Return the rows that stand for (heads, KV heads, head size) of one device, and a scale.

    With ``split`` (decode: bound by the KV it reads, one block of work per sequence and KV head) a shape with more
    KV heads than measured is taken as so many times the sequences with fewer: the scale divides the batch. Without
    (prefill: bound by its operations) the scale multiplies the time by the query heads it has too many.
    """
    heads, kv_heads, size = shape
    of_size = table.where(table.numbers["head_dim"] == size)
    if not len(of_size):
        known = ", ".join(f"{value:g}" for value in np.unique(table.numbers["head_dim"]))
        raise problem(table.path, f"no attention with heads of {size} (measured: {known})")
    queries, groups = of_size.numbers["num_heads"], of_size.numbers["num_key_value_heads"]
    groups = np.where(groups == 0, queries, groups)  # older tables write 0 for "as many as heads"
    exact = (queries == heads) & (groups == kv_heads)
    if exact.any():
        return of_size.where(exact), 1.0
    if split:
        for fewer in sorted({int(value) for value in np.unique(groups)}, reverse=True):
            alike = (groups == fewer) & (queries * kv_heads == heads * fewer)
            if fewer < kv_heads and kv_heads % fewer == 0 and alike.any():
                findings.remark(f"decode attention of {kv_heads} KV heads: as {fewer} of more sequences")
                return of_size.where(alike), kv_heads / fewer
    more = queries[(groups == kv_heads) & (queries >= heads)]
    if not len(more):
        raise problem(table.path, f"no attention with {heads} heads and {kv_heads} KV heads, nor more heads")
    nearest = float(more.min())
    findings.remark(f"attention of {heads} heads over {kv_heads}: as {nearest:g} heads")
    return of_size.where((queries == nearest) & (groups == kv_heads)), 1.0 if split else heads / nearest
