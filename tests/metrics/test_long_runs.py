"""A long run is worked through in pieces, and gives the tables and figures of a run that is looked at as a whole."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import hermes_flow as hf
from hermes_flow.metrics import critical_path, itl, result, stage_sums, throughput
from hermes_flow.metrics.result import Result
from hermes_flow.metrics.rows import pieces, rows_of
from hermes_flow.metrics.why import clients
from hermes_flow.recording.recording import Recording

CHAT = ["pipeline=chat", "workload=synthetic", "workload.requests=400", "cluster.pools.llm.count=2"]


def recorded(*overrides: str) -> Recording:
    return hf.simulate(hf.compile(hf.compose([*CHAT, *overrides]))).recording


def cut_into_pieces(monkeypatch: pytest.MonkeyPatch, requests: int) -> None:
    for module in (result, clients):
        monkeypatch.setattr(module, "MANY_REQUESTS", 1)
    monkeypatch.setattr(result, "_ROWS_PER_PIECE", requests)
    monkeypatch.setattr(itl, "_ROWS_AT_ONCE", 1)
    for module in (critical_path, stage_sums, throughput):
        monkeypatch.setattr(module, "pieces", lambda recording: pieces(recording, requests))


@pytest.mark.parametrize("rate", ["workload.rate_per_s=5", "workload.rate_per_s=200"])
def test_pieces_give_the_tables_and_the_summary_of_the_whole(
    rate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At 200 requests per second on little memory some are preempted, and the SLO is missed.
    recording = recorded(rate, "cluster.pools.llm.kv_blocks=1500")
    whole = Result(recording)
    whole.write(tmp_path / "whole")
    cut_into_pieces(monkeypatch, 61)
    cut = Result(recording)
    cut.write(tmp_path / "cut")
    for name in ("requests", "stages", "clients"):
        expected = pl.read_parquet(tmp_path / "whole" / f"{name}.parquet")
        assert pl.read_parquet(tmp_path / "cut" / f"{name}.parquet").equals(expected)
        assert getattr(cut, name).equals(expected)
        assert getattr(cut, name).schema == expected.schema
    steady = cut.summary["throughput"].pop("steady")
    expected_steady = whole.summary["throughput"].pop("steady")
    assert steady == pytest.approx(expected_steady, rel=1e-12)  # the order of its sum is that of the pieces
    itl_s, expected_itl = cut.summary.pop("itl_s"), whole.summary.pop("itl_s")
    assert itl_s.pop("mean") == pytest.approx(expected_itl.pop("mean"), rel=1e-12)
    assert itl_s == expected_itl
    assert cut.summary == whole.summary


def test_a_piece_has_the_rows_of_its_requests_and_the_clients_of_the_whole() -> None:
    recording = recorded("workload.requests=30")
    piece = rows_of(recording, 10, 25)
    assert len(piece.program.requests) == len(piece.status) == 15
    assert piece.arrival_ns.tolist() == recording.arrival_ns[10:25].tolist()
    for own, whole in zip(piece.ops, recording.ops, strict=True):
        assert own.start_ns.tolist() == whole.start_ns[10:25].tolist()
    for op, whole_op in zip(piece.program.ops, recording.program.ops, strict=True):
        assert len(op.work.tokens if op.generate is None else op.generate.prompt) == 15
        assert op.pool == whole_op.pool
    assert piece.clients == recording.clients


def test_pieces_cover_every_request_once() -> None:
    recording = recorded("workload.requests=30")
    found = [(first, len(piece.status)) for first, piece in pieces(recording, 12)]
    assert found == [(0, 12), (12, 12), (24, 6)]
    assert list(pieces(recording, 30)) == [(0, recording)]


def test_failed_requests_stay_with_their_rows() -> None:
    recording = recorded("workload.requests=40", "cluster.pools.llm.kv_blocks=30")
    failed = [request for request, reason in recording.failures.items() if reason]
    assert 0 < len(failed) < 40
    piece = rows_of(recording, 20, 40)
    assert sorted(piece.failures) == sorted(request - 20 for request in failed if request >= 20)
