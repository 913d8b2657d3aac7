from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cli.command import hermes_flow

TABLES = ("requests", "stages", "clients", "steps")
CONFIG = (
    "workload=synthetic",
    "workload.requests=300",
    "workload.rate_per_s=20",
    "cluster.pools.llm.count=3",
    "cluster.routing=random",
    "+pipeline.stages.tokenize.share=0.5",
    "output.steps=true",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    cwd = tmp_path_factory.mktemp("determinism")
    runs = [("0", "a"), ("12345", "b"), ("12345", "c", "seed=1")]
    found = []
    for hash_seed, name, *more in runs:
        done = hermes_flow(cwd, *CONFIG, f"hydra.run.dir={name}", *more, PYTHONHASHSEED=hash_seed)
        assert done.status == 0, done.err
        found.append(cwd / name)
    return found


def summary(folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    for name in ("wall_s", "cpu_s"):
        assert figures["engine"].pop(name) > 0
    return figures


@pytest.mark.parametrize("table", TABLES)
def test_equal_configs_give_equal_tables_to_the_last_byte(table: str, folders: list[Path]) -> None:
    first, again, _ = ((folder / f"{table}.parquet").read_bytes() for folder in folders)
    assert first == again


@pytest.mark.parametrize("table", TABLES)
def test_another_seed_gives_other_tables(table: str, folders: list[Path]) -> None:
    first, _, other = ((folder / f"{table}.parquet").read_bytes() for folder in folders)
    assert first != other


def test_equal_configs_give_equal_summaries_but_for_the_time_they_took(folders: list[Path]) -> None:
    first, again, other = (summary(folder) for folder in folders)
    assert first == again
    assert first != other


def test_equal_configs_give_equal_programs(folders: list[Path]) -> None:
    first, again, other = ((folder / "program.txt").read_bytes() for folder in folders)
    assert first == again
    assert first != other
