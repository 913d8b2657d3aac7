"""A search goes on from an earlier one only if the files that both read have the same contents."""

from __future__ import annotations

import os
from pathlib import Path

import polars as pl
import pytest
from cli.command import in_this_process
from trace_files import write_trace

SEARCHES = {
    "capacity": ("task.seeds=1", "task.tolerance=0.5", "task.error_bar=false", "task.high=2"),
    "plan": (
        *("task.hardware=[h100_sxm]", "task.tensor_parallel=[1]", "task.layouts=[replicas]"),
        *("task.headrooms=0", "task.error_bars=0", "task.processes=1"),
    ),
}


@pytest.mark.parametrize("verb", SEARCHES)
def test_a_search_goes_on_from_another_only_with_the_same_contents_of_its_trace(
    tmp_path: Path, verb: str
) -> None:
    path = tmp_path / "trace.csv"
    given = [verb, "pipeline=llm", *SEARCHES[verb], *write_trace(path, requests(output_tokens=20))]
    first = in_this_process(tmp_path, *given, "hydra.run.dir=first")
    assert first.status == 0, first.err
    before = path.stat()

    write_trace(path, requests(output_tokens=20))
    os.utime(
        path, ns=(before.st_atime_ns, before.st_mtime_ns + 3_600_000_000_000)
    )  # only its time is another one
    again = in_this_process(tmp_path, *given, "task.resume=first", "hydra.run.dir=again")
    assert again.status == 0, again.err
    tables = [pl.read_parquet(tmp_path / folder / f"{verb}.parquet") for folder in ("first", "again")]
    assert tables[0].equals(tables[1])

    write_trace(path, requests(output_tokens=30))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # as cp -p leaves it, and as large as before
    assert path.stat().st_size == before.st_size
    refused = in_this_process(tmp_path, *given, "task.resume=first", "hydra.run.dir=refused")
    assert refused.status == 1
    assert " ".join(refused.err.split()) == (
        f"hermes-flow: task.resume: {path} has changed since the search in first began"
    )
    assert not (tmp_path / "refused").exists()

    (tmp_path / "first" / "inputs.json").unlink()
    unknown = in_this_process(tmp_path, *given, "task.resume=first", "hydra.run.dir=refused")
    assert "task.resume: first has no record of " in " ".join(unknown.err.split())


def requests(output_tokens: int) -> list[tuple[float, int, int]]:
    return [(round(2.0 * number, 1), 100, output_tokens) for number in range(6)]
