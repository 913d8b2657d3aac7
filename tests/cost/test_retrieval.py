from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hermes_flow.config.retrieval import MemoryLevel, ProductFit, RetrievalEfficiency
from hermes_flow.cost.retrieval import (
    Host,
    Index,
    VectorRerank,
    demand,
    index_variants,
    parse_index,
    seconds,
    work,
)
from hermes_flow.errors import ConfigError

KEY = "pipeline.stages.search"
# 0.1 % of 64 G vectors of 768 dimensions in 96 bytes, on one of 16 hosts of 96 cores (RAGO, arXiv 2503.14649)
RAGO_INDEX = {
    "index": "ivf_pq",
    "centroids": 250_000,
    "vectors": 4e9,
    "probes": 250,
    "dim": 768,
    "code_bytes": 96,
}
RAGO_HOST = Host(
    "hardware.retrieval",
    96,
    460e9,
    RetrievalEfficiency(
        source="RAGO",
        levels={"memory": MemoryLevel(scan_gb_s=10, gather_gb_s=10)},
        code_gb_s=18,
        shared_reads=True,
        bandwidth_fraction=0.8,
    ),
)
MEASURED = RetrievalEfficiency(
    source="round figures",
    levels={
        "cache": MemoryLevel(scan_gb_s=50, fits_mb=10, gather_gb_s=20, walk_ns=10),
        "memory": MemoryLevel(scan_gb_s=25, gather_gb_s=5, walk_ns=100),
    },
    code_gb_s=2,
    code_ns=3,
    table_gflops=20,
    candidate_ns=1,
    heap_ns=8,
    list_ns=500,
    link_ns=2,
    query_us=1,
    call_us=4,
    sync_us=2,
    product=ProductFit(from_batch_dim=1000, gflops=100),
)
HOST = Host("hardware.retrieval", 8, 200e9, MEASURED)


def index(name: str, **fields: Any) -> Index:
    return parse_index({"index": name, **fields}, KEY)


def only(**terms: Any) -> Host:
    """A host all of whose overheads are 0, but for ``terms``."""
    free = {
        field.name: 0.0
        for field in dataclasses.fields(MEASURED)
        if field.default == 0.0 and field.name != "bandwidth_fraction"
    }
    return Host("hardware.retrieval", 8, 1e15, dataclasses.replace(MEASURED, **{**free, **terms}))


def test_ivf_pq_reads_centroids_once_a_batch_and_codes_and_tables_for_each_query() -> None:
    found = work(index("ivf_pq", centroids=1000, probes=10, vectors=1e6, dim=128, code_bytes=16), batch=8)
    assert found.bytes == 4 * 1000 * 128 + 8 * (10 * 1000 * 16 + 256 * 4 * 128)
    assert found.flops == 8 * (2 * 1000 * 128 + 2 * 256 * 128 + 10 * 1000 * 16)


def test_exhaustive_search_and_lists_of_vectors_count_coordinates() -> None:
    flat = work(index("flat", vectors=5000, dim=64), batch=3)
    assert (flat.bytes, flat.flops) == (4 * 5000 * 64, 3 * 2 * 5000 * 64)
    lists = work(index("ivf_flat", centroids=50, probes=5, vectors=5000, dim=64), batch=3)
    assert lists.bytes == 4 * 50 * 64 + 3 * 4 * 500 * 64


def test_a_graph_reads_the_vectors_it_meets_and_the_links_it_looks_at() -> None:
    found = work(index("hnsw", vectors=1e6, links=16, ef_search=64, distances=900, dim=64), batch=2)
    assert found.bytes == 2 * 4 * (900 * 64 + 64 * 32)


def test_reranking_by_vectors_reads_four_bytes_a_coordinate_of_each_document() -> None:
    assert work(VectorRerank(documents=20, vectors=1e6, dim=768), batch=1).bytes == 20 * 768 * 4


def test_a_tenth_of_a_percent_of_64_billion_codes_is_6_gigabytes_a_query() -> None:
    codes = next(part for part in parse_index(RAGO_INDEX, KEY).operators() if part.name == "codes")
    assert 16 * codes.bytes == pytest.approx(6.1e9, rel=0.01)


def test_the_codes_of_one_query_are_scanned_at_18_gigabytes_a_second_and_core() -> None:
    phases = {phase.name: phase for phase in demand(parse_index(RAGO_INDEX, KEY), 1, RAGO_HOST, 1).phases}
    assert phases["codes"].busy_s == pytest.approx(4e6 * 96 / 18e9)


def test_all_cores_together_are_bound_by_eight_tenths_of_the_bandwidth() -> None:
    asked = demand(parse_index(RAGO_INDEX, KEY), 1, RAGO_HOST)
    codes = next(phase for phase in asked.phases if phase.name == "codes")
    assert codes.seconds(RAGO_HOST.usable_bandwidth) == pytest.approx(4e6 * 96 / (0.8 * 460e9))
    assert codes.busy_s < codes.seconds(RAGO_HOST.usable_bandwidth)


def test_each_constant_has_its_term() -> None:
    search = index("ivf_pq", centroids=100, probes=10, vectors=1e5, dim=64, code_bytes=8)
    free = seconds(search, 1, only(), 1)

    def added(**terms: float) -> float:
        return seconds(search, 1, only(**terms), 1) - free

    assert added(candidate_ns=1) == pytest.approx(100e-9)  # centroids
    assert added(code_ns=1) == pytest.approx(10_000e-9)
    assert added(list_ns=1) == pytest.approx(10e-9)
    assert added(query_us=1) == pytest.approx(1e-6)
    assert added(call_us=1) == pytest.approx(2e-6)  # of the centroids' index, of the lists
    lists, best = 10 * (1 + math.log(10)) * math.log2(10), 10 * (1 + math.log(1000)) * math.log2(10)
    assert added(heap_ns=1) == pytest.approx((lists + best) * 1e-9)


def test_vectors_that_fit_a_cache_are_scanned_at_its_rate_and_read_nothing_from_memory() -> None:
    small, large = index("flat", vectors=10_000, dim=64), index("flat", vectors=1e6, dim=64)
    host = only()
    assert seconds(small, 1, host, 1) == pytest.approx(10_000 * 256 / 50e9)
    assert demand(small, 1, host, 1).bytes == 0
    cached = 10e6 / 256e6
    assert seconds(large, 1, host, 1) == pytest.approx(256e6 * (cached / 50e9 + (1 - cached) / 25e9))
    assert demand(large, 1, host, 1).bytes == pytest.approx(256e6 - 10e6)


def test_queries_of_a_batch_scan_by_themselves_until_it_is_one_product() -> None:
    search, host = index("flat", vectors=1e6, dim=64, parallel="inter_query"), only()
    one, fifteen, sixteen = (demand(search, batch, host, 1) for batch in (1, 15, 16))
    assert fifteen.busy_s == pytest.approx(15 * one.busy_s)
    assert fifteen.bytes == pytest.approx(15 * one.bytes)
    assert sixteen.bytes == pytest.approx(one.bytes)
    assert sixteen.busy_s == pytest.approx(one.busy_s + 16 * 2 * 1e6 * 64 / 100e9)


def test_hosts_that_share_reads_take_the_vectors_from_memory_once_a_batch() -> None:
    search = index("flat", vectors=1e6, dim=64)
    shared = only(shared_reads=True, product=None)
    alone = only(product=None)
    assert demand(search, 8, shared).bytes == demand(search, 1, shared).bytes
    assert demand(search, 8, alone).bytes == 8 * demand(search, 1, alone).bytes


def test_between_queries_the_core_with_the_most_of_them_decides() -> None:
    search, host = (
        index("ivf_flat", centroids=100, probes=5, vectors=1e6, parallel="inter_query"),
        only(product=None),
    )
    one = demand(search, 1, host, 1).busy_s
    assert demand(search, 1, host, 8).busy_s == pytest.approx(one)
    assert demand(search, 8, host, 8).busy_s == pytest.approx(one)
    assert demand(search, 9, host, 8).busy_s == pytest.approx(2 * one)


def test_within_a_query_all_cores_share_each_phase_and_scans_wait_for_one_another() -> None:
    search = index("ivf_flat", centroids=100, probes=5, vectors=1e6, parallel="intra_query")
    one = demand(search, 1, only(), 1).busy_s
    scans = 2  # of the centroids, of the lists
    assert demand(search, 1, only(), 8).busy_s == pytest.approx(one / 8)
    assert demand(search, 1, only(sync_us=1), 8).busy_s == pytest.approx(one / 8 + scans * 8e-6)


def test_a_search_never_draws_more_than_its_peak_and_ends_when_its_bytes_have_come() -> None:
    asked = demand(index("ivf_flat", centroids=1000, probes=50, vectors=1e7), 4, HOST)
    assert asked.seconds(asked.peak_bandwidth) == pytest.approx(asked.busy_s)
    assert asked.seconds(asked.peak_bandwidth * 2) == pytest.approx(asked.busy_s)
    slow = asked.bytes / 1e6
    assert asked.seconds(1e6) == pytest.approx(slow, rel=0.01)


SEARCHES = st.one_of(
    st.builds(
        lambda n, d: {"index": "flat", "vectors": n, "dim": d}, st.integers(100, 10**7), st.integers(8, 2048)
    ),
    st.builds(
        lambda c, p, n: {"index": "ivf_flat", "centroids": c, "probes": min(c, p), "vectors": c * n},
        st.integers(1, 10**5),
        st.integers(1, 200),
        st.integers(1, 5000),
    ),
    st.builds(
        lambda c, p, n: {"index": "ivf_pq", "centroids": c, "probes": min(c, p), "vectors_per_probe": n},
        st.integers(1, 10**6),
        st.integers(1, 200),
        st.integers(1, 5000),
    ),
    st.builds(
        lambda n, m, ef: {"index": "hnsw", "vectors": n, "links": m, "ef_search": ef},
        st.integers(100, 10**6),
        st.integers(4, 64),
        st.integers(10, 500),
    ),
)


@given(SEARCHES, st.integers(1, 64), st.integers(1, 8), st.floats(1e8, 1e12))
def test_more_queries_take_longer_and_more_bandwidth_never_does(
    search: dict[str, Any], batch: int, cores: int, bandwidth: float
) -> None:
    found = parse_index(search, KEY)
    asked = demand(found, batch, HOST, cores)
    assert 0 < asked.busy_s <= asked.seconds(2 * bandwidth) <= asked.seconds(bandwidth) < math.inf
    # One product of matrices may take less than as many scans; apart from it, a query more is time more.
    plain = dataclasses.replace(HOST, efficiency=dataclasses.replace(MEASURED, product=None))
    assert seconds(found, batch, plain, cores) <= seconds(found, batch + 1, plain, cores)


@given(SEARCHES, st.integers(1, 64))
def test_more_cores_never_take_longer_where_waiting_is_free(search: dict[str, Any], batch: int) -> None:
    found = parse_index(search, KEY)
    host = only()
    times = [demand(found, batch, host, cores).busy_s for cores in (1, 2, 4, 8)]
    assert times == sorted(times, reverse=True)


@given(SEARCHES, st.integers(1, 64), st.integers(1, 8))
def test_memory_gives_no_more_than_is_read(search: dict[str, Any], batch: int, cores: int) -> None:
    found = parse_index(search, KEY)
    read = batch * sum(part.bytes for part in found.operators())
    assert demand(found, batch, HOST, cores).bytes <= read * (1 + 1e-12)
    assert found.memory_bytes > 0


def test_the_estimate_of_a_graph_search_grows_with_all_that_widens_it() -> None:
    def compared(**changes: float) -> float:
        found = index("hnsw", **{"vectors": 50_000, "links": 16, "ef_search": 64, **changes})
        return work(found, 1).flops / (2 * found.dim)

    assert compared(vectors=100_000) > compared()
    assert compared(links=32) > compared()
    assert compared(ef_search=128) > compared()
    assert compared(vectors=50) == 50
    assert compared(distances=777) == 777


def test_an_index_occupies_its_vectors_codes_centroids_and_links() -> None:
    assert index("flat", vectors=1000, dim=64).memory_bytes == 256_000
    assert index("ivf_flat", vectors=1000, centroids=10, probes=1, dim=64).memory_bytes == 1010 * 256 + 8000
    assert index("hnsw", vectors=1000, links=16, dim=64).memory_bytes == 1000 * (256 + 128)
    assert parse_index({**RAGO_INDEX, "vectors": 64e9}, KEY).memory_bytes == pytest.approx(
        104 * 64e9, rel=0.01
    )


def test_the_documented_kinds_of_index_are_all_there_are() -> None:
    assert index_variants.names == ["flat", "hnsw", "ivf_flat", "ivf_pq"]


@pytest.mark.parametrize(
    ("fields", "key", "problem"),
    [
        ({"index": "ivf_p"}, "index", "did you mean 'ivf_pq'"),
        ({"index": "flat"}, "vectors", "missing"),
        ({"index": "flat", "vectors": 100, "probes": 3}, "probes", "it is a key of ivf_flat, ivf_pq"),
        ({"index": "flat", "vectors": 0}, "vectors", "0 is out of range"),
        ({"index": "flat", "vectors": math.inf}, "vectors", "inf is out of range"),
        ({"index": "flat", "vectors": 5, "neighbors": 6}, "neighbors", "6 is more than the vectors, 5"),
        (
            {"index": "ivf_flat", "centroids": 4, "probes": 5, "vectors": 9},
            "probes",
            "more than the centroids, 4",
        ),
        ({"index": "ivf_flat", "centroids": 4, "probes": 1}, "", "neither vectors nor vectors_per_probe"),
        (
            {"index": "ivf_flat", "centroids": 4, "probes": 2, "vectors": 9, "vectors_per_probe": 5},
            "vectors_per_probe",
            "10 is more than all vectors",
        ),
        (
            {"index": "ivf_pq", "centroids": 4, "probes": 1, "vectors": 9, "dim": 100, "code_bytes": 33},
            "code_bytes",
            "expected a divisor of dim, 100",
        ),
        (
            {"index": "hnsw", "vectors": 1e9},
            "distances",
            "missing; it can be estimated for up to 1,000,000 vectors",
        ),
        ({"index": "hnsw", "vectors": 1e5, "parallel": "both"}, "parallel", "'both' is not valid"),
    ],
)
def test_sizes_that_describe_no_index_are_named(fields: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_index(fields, KEY)
    assert caught.value.key == (f"{KEY}.{key}" if key else KEY)
    assert problem in caught.value.problem


def test_documents_to_rank_again_are_among_the_vectors() -> None:
    with pytest.raises(ConfigError, match=r"rerank\.documents: 30 is more than the vectors, 20"):
        VectorRerank(documents=30, vectors=20).check("rerank")
    with pytest.raises(ConfigError, match=r"rerank\.neighbors: 10 is more than the documents, 5"):
        VectorRerank(documents=5, vectors=20).check("rerank")


@pytest.mark.parametrize(
    ("search", "changes", "key"),
    [
        (index("ivf_pq", centroids=10, probes=1, vectors=100), {"code_gb_s": None}, "code_gb_s"),
        (index("hnsw", vectors=100), {}, "levels.memory.walk_ns"),
        (VectorRerank(documents=10, vectors=100), {}, "levels.memory.gather_gb_s"),
    ],
)
def test_a_figure_that_a_search_needs_and_the_host_lacks_is_an_error(
    search: Index, changes: dict[str, Any], key: str
) -> None:
    fit = dataclasses.replace(MEASURED, levels={"memory": MemoryLevel(scan_gb_s=10)}, **changes)
    with pytest.raises(ConfigError) as caught:
        seconds(search, 1, Host("hardware.retrieval", 8, 1e11, fit))
    assert caught.value.key == f"hardware.retrieval.{key}"
