"""The cost of vector search: each kind of index is a list of operators that a host runs.

    index = parse_index({"index": "ivf_pq", "centroids": 4e6, "probes": 50, "vectors_per_probe": 5000}, key)
    work(index, batch)                      # bytes and operations, no host in it
    seconds(index, batch, host, cores=8)    # on a host by itself
    demand(index, batch, host, cores=8)     # for a simulator that shares the memory's bandwidth out

One module per kind of index, found by its registered name. Equations, sources and errors: docs/retrieval.md.
"""

from __future__ import annotations

from hermes_flow.cost.retrieval.host import Host
from hermes_flow.cost.retrieval.index import Index, index_variants, parse_index
from hermes_flow.cost.retrieval.rerank import VectorRerank
from hermes_flow.cost.retrieval.search import Demand, Phase, Work, demand, seconds, work

__all__ = [
    "Demand",
    "Host",
    "Index",
    "Phase",
    "VectorRerank",
    "Work",
    "demand",
    "index_variants",
    "parse_index",
    "seconds",
    "work",
]
