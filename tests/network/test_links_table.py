"""The table of links: what passed each, how full it was, and how long transfers were held up."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path as FilePath
from typing import Any, Literal
from unittest.mock import patch

import polars as pl
import pytest
from oracles.fluid_network import Transfer, simulate_fluid
from pools.llm.deployments import (
    affine,
    moved_by_link,
    one_request,
    random_deployment,
    replayed,
    with_cluster,
    with_pool,
)
from pure_core import needs_pure_core

import hermes_flow as hf
from hermes_flow.network.fabric import Fabric
from hermes_flow.network.topology import Path

PAGE = FilePath(__file__).resolve().parents[2] / "docs" / "metrics.md"
KV_BYTES = 2 * 32 * 8 * 128 * 2  # llama3_8b: K and V of 32 layers, 8 heads of 128, in bf16
ALONE_NS = 1000 * KV_BYTES / 450  # 1,000 tokens over a link of 450 GB/s
SCHEMA = {
    "link": pl.String,
    "level": pl.String,
    "gb_s": pl.Float64,
    "transfers": pl.Int64,
    "bytes": pl.Int64,
    "busy_fraction": pl.Float64,
    "utilization": pl.Float64,
    "mean_transfers": pl.Float64,
    "transfer_s": pl.Float64,
    "delay_s": pl.Float64,
}


def two_senders(folder: FilePath, second_us: float, *overrides: str) -> hf.Result:
    """Let two clients prefill 1,000 tokens each, the second one later, for the same decode client."""
    config = replayed(folder, [(0, 1000, 9), (second_us, 1000, 9)], *overrides)
    return hf.simulate(hf.compile(with_pool(config, "prefill", count=2)))


def row(result: hf.Result, link: str) -> dict[str, Any]:
    return result.links.row(by_predicate=pl.col("link") == link, named=True)


def end_s(result: hf.Result) -> float:
    return float(result.requests["finish_s"].max())  # type: ignore[arg-type]


# By hand.


def test_one_transfer_on_idle_links() -> None:
    result = hf.simulate(hf.compile(one_request(affine("network.node.latency_us=7"), prompt=1000)))
    assert result.links["link"].to_list() == ["prefill/0 node out", "decode/0 node in"]
    for link in result.links.iter_rows(named=True):
        assert (link["level"], link["gb_s"]) == ("node", 450.0)
        assert (link["transfers"], link["bytes"]) == (1, 1000 * KV_BYTES)
        assert link["transfer_s"] == pytest.approx(round(ALONE_NS) / 1e9)  # without the latency
        assert link["delay_s"] == 0.0
        assert link["mean_transfers"] == 1.0
        assert link["busy_fraction"] == pytest.approx(round(ALONE_NS) / 1e9 / end_s(result))
        assert link["utilization"] == pytest.approx(link["busy_fraction"], rel=1e-5)


def test_two_equal_transfers_that_share_a_link_take_twice_as_long(tmp_path: FilePath) -> None:
    result = two_senders(tmp_path, 0)
    shared = row(result, "decode/0 node in")
    assert shared["transfers"] == 2
    assert shared["transfer_s"] * 1e9 == pytest.approx(2 * ALONE_NS, abs=1)
    assert shared["delay_s"] * 1e9 == pytest.approx(ALONE_NS, abs=1)
    assert shared["mean_transfers"] == 2.0
    assert shared["utilization"] == pytest.approx(shared["busy_fraction"], rel=1e-5)
    for sender in ("prefill/0", "prefill/1"):  # held up elsewhere on their way: half of the link is idle
        own = row(result, f"{sender} node out")
        assert own["transfers"] == 1
        assert own["transfer_s"] == shared["transfer_s"]
        assert own["delay_s"] == shared["delay_s"]
        assert own["mean_transfers"] == 1.0
        assert own["utilization"] == pytest.approx(own["busy_fraction"] / 2, rel=1e-5)
    waits = result.stages.filter(pl.col("stage") == "decode")["transfer_s"]
    assert waits.to_list() == [shared["transfer_s"]] * 2


def test_who_comes_half_way_is_held_up_as_long_as_he_holds_up_the_other(tmp_path: FilePath) -> None:
    # Alone for half of its bytes, then two at half the rate for as long again, twice, then alone: 1.5 and 1.5.
    result = two_senders(tmp_path, ALONE_NS / 2 / 1000)
    shared = row(result, "decode/0 node in")
    assert shared["transfer_s"] * 1e9 == pytest.approx(1.5 * ALONE_NS, abs=2)
    assert shared["delay_s"] * 1e9 == pytest.approx(0.5 * ALONE_NS, abs=2)
    assert shared["mean_transfers"] == pytest.approx(1.5, rel=1e-4)  # 3 transfer times within 2 busy ones
    assert shared["busy_fraction"] * end_s(result) * 1e9 == pytest.approx(2 * ALONE_NS, abs=2)


def test_transfers_that_do_not_meet_do_not_delay_each_other(tmp_path: FilePath) -> None:
    shared = row(two_senders(tmp_path, 5000), "decode/0 node in")
    assert shared["transfers"] == 2
    assert shared["delay_s"] == 0.0
    assert shared["mean_transfers"] == 1.0
    assert shared["transfer_s"] * 1e9 == pytest.approx(ALONE_NS, abs=1)


def test_layer_by_layer_there_are_two_transfers_a_request() -> None:
    config = with_cluster(one_request(affine(), prompt=1000), kv_transfer="layerwise")
    for link in hf.simulate(hf.compile(config)).links.iter_rows(named=True):
        assert (link["transfers"], link["bytes"]) == (2, 1000 * KV_BYTES)
        assert link["transfer_s"] * 1e9 == pytest.approx(ALONE_NS / 2, abs=1)
        assert link["delay_s"] == 0.0


def test_the_rate_is_what_transfers_reach_of_the_line_rate() -> None:
    config = with_pool(affine("network.rack.efficiency=0.4"), "prefill", tensor_parallel=8)
    result = hf.simulate(hf.compile(one_request(with_pool(config, "decode", tensor_parallel=4))))
    rates = dict(result.links.select("link", "gb_s").iter_rows())
    assert rates == {"prefill/0 rack out": pytest.approx(160), "decode/0 rack in": pytest.approx(80)}
    assert set(result.links["level"]) == {"rack"}
    # The narrowest link sets the pace, and nobody is in the way.
    assert row(result, "decode/0 rack in")["utilization"] == pytest.approx(
        2 * row(result, "prefill/0 rack out")["utilization"]
    )
    assert (result.links["delay_s"] == 0).all()


# Of any run.


@dataclass
class Moves:
    """What a fabric was told to move, in order, with when it all was over."""

    topology: Any = None
    transfers: list[Transfer] = field(default_factory=list)


@contextmanager
def noted_moves() -> Iterator[Moves]:
    moves = Moves()
    send = Fabric.send

    def noting(self: Fabric, path: Path, size: int, payload: int, now_ns: int) -> None:
        if size:
            moves.transfers.append(Transfer(now_ns, size, path.links))
        moves.topology = self._topology
        send(self, path, size, payload, now_ns)

    with patch.object(Fabric, "send", noting):
        yield moves


@needs_pure_core
@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
@pytest.mark.parametrize("closed", [False, True])
def test_every_figure_equals_that_of_exact_fluids(
    kv_transfer: Literal["full", "layerwise"], closed: bool
) -> None:
    rng = random.Random(f"links {kv_transfer} {closed}")
    levels: set[str] = set()
    delayed = 0
    for _ in range(20):
        with noted_moves() as moves:
            result = hf.simulate(hf.compile(random_deployment(rng, closed, kv_transfer)))
        if not moves.transfers:
            continue
        names, rates = moves.topology.names, moves.topology.bytes_per_ns
        ends = simulate_fluid(moves.transfers, {link: Fraction(rate) for link, rate in enumerate(rates)})
        assert result.links["link"].to_list() == names
        for number, link in enumerate(result.links.iter_rows(named=True)):
            using = [
                (transfer, end)
                for transfer, end in zip(moves.transfers, ends, strict=True)
                if number in transfer.links
            ]
            spent = sum(end - transfer.start_ns for transfer, end in using)
            alone = sum(transfer.size / min(rates[k] for k in transfer.links) for transfer, _ in using)
            busy = busy_ns(using)
            assert link["transfers"] == len(using)
            assert link["bytes"] == sum(transfer.size for transfer, _ in using)
            assert link["transfer_s"] * 1e9 == pytest.approx(float(spent / len(using)), abs=3)
            assert link["delay_s"] * 1e9 == pytest.approx((float(spent) - alone) / len(using), abs=3)
            assert link["busy_fraction"] * end_s(result) * 1e9 == pytest.approx(
                busy, abs=3 * len(using)
            )  # ends on whole ns
            assert link["mean_transfers"] == pytest.approx(float(spent) / busy, rel=0.02)
            delayed += link["delay_s"] > 1e-8
            levels.add(link["level"])
    assert delayed > 15
    assert levels == {"node", "rack", "datacenter"}


def busy_ns(using: list[tuple[Transfer, Fraction]]) -> float:
    """Return how long anything is under way."""
    busy, until = Fraction(0), Fraction(0)
    for transfer, end in sorted(using, key=lambda entry: entry[0].start_ns):
        busy += max(Fraction(0), end - max(until, Fraction(transfer.start_ns)))
        until = max(until, end)
    return float(busy)


@pytest.mark.parametrize("kv_transfer", ["full", "layerwise"])
def test_figures_agree_with_each_other_and_with_the_stages(kv_transfer: Literal["full", "layerwise"]) -> None:
    rng = random.Random(kv_transfer)
    rows = 0
    for _ in range(40):
        result = hf.simulate(hf.compile(random_deployment(rng, False, kv_transfer, rng.choice([1, 2]))))
        links, end = result.links, end_s(result)
        assert dict(links.select("link", "bytes").iter_rows()) == moved_by_link(result.recording)
        moved = result.stages["bytes"].sum()
        by_level = dict(links.group_by("level").agg(pl.col("bytes").sum()).iter_rows())
        assert by_level.get("node", 0) + by_level.get("rack", 0) == 2 * moved
        for link in links.iter_rows(named=True):
            assert link["utilization"] * link["gb_s"] * 1e9 * end == pytest.approx(link["bytes"])
            assert 0 < link["utilization"] <= link["busy_fraction"] * (1 + 1e-3) <= 1 + 1e-3
            assert 1 <= link["mean_transfers"] <= link["transfers"]
            assert link["mean_transfers"] * link["busy_fraction"] * end == pytest.approx(
                link["transfers"] * link["transfer_s"]
            )
            assert 0 <= link["delay_s"] < link["transfer_s"]
            rows += 1
    assert rows > 100


def test_the_table_has_its_columns_whether_or_not_anything_moved() -> None:
    busy = hf.simulate(hf.compile(one_request(affine()))).links
    idle = hf.simulate(hf.compile(one_request(affine(), output=1))).links
    none = hf.simulate(hf.compile(hf.compose(["workload.requests=2"]))).links
    assert dict(busy.schema) == dict(idle.schema) == dict(none.schema) == SCHEMA
    assert (len(busy), len(idle), len(none)) == (2, 0, 0)


def test_every_column_is_explained() -> None:
    text = PAGE.read_text(encoding="utf-8")
    (section,) = re.findall(r"^## Links:.*?(?=^## )", text, flags=re.MULTILINE | re.DOTALL)
    explained = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert explained == list(SCHEMA)


def test_the_file_is_written_where_clients_exchange_kv_and_nowhere_else(tmp_path: FilePath) -> None:
    apart = hf.simulate(hf.compile(one_request(affine())))
    names = [path.name for path in apart.write(tmp_path / "apart")]
    assert names.count("links.parquet") == 1
    read = pl.read_parquet(tmp_path / "apart" / "links.parquet")
    assert read.equals(apart.links)
    assert dict(read.schema) == SCHEMA
    together = hf.simulate(hf.compile(hf.compose(["workload.requests=2"])))
    assert "links.parquet" not in [path.name for path in together.write(tmp_path / "together")]
    assert not (tmp_path / "together" / "links.parquet").exists()
