"""A folder that holds a result is never mixed with a new one, and a command that fails leaves no folder behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli.command import in_this_process

from hermes_flow.errors import HermesFlowError
from hermes_flow.runs.folder_lock import FolderLock
from hermes_flow.runs.result_files import RESULT_FILES, own_files

SMALL = ("workload=synthetic", "workload.requests=3", "hydra.run.dir=mine")


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A run that wrote everything that a run can write."""
    done = in_this_process(tmp_path, *SMALL, "output.steps=true", "output.trace=true")
    assert done.status == 0
    return tmp_path / "mine"


def test_a_used_folder_is_refused_and_stays_as_it_is(used: Path) -> None:
    before = files(used)
    refused = in_this_process(used.parent, *SMALL, "seed=1")
    assert refused.status == 1
    assert " ".join(refused.err.split()) == (
        "hermes-flow: mine: holds the result of a run; output.overwrite=true replaces it, and hydra.run.dir=… names "
        "another folder"
    )
    assert files(used) == before
    assert in_this_process(used.parent, "-m", *SMALL, "hydra.sweep.dir=mine").status == 1
    assert files(used) == before


def test_overwriting_replaces_the_whole_old_result_and_nothing_else(used: Path) -> None:
    (used / "notes.md").write_text("mine")
    (used / "error.txt").write_text("stale")
    assert in_this_process(used.parent, *SMALL, "output.overwrite=true").status == 0
    tables = ("requests", "stages", "clients")
    settings = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml")
    own = {*(f"{table}.parquet" for table in tables), "summary.json", "program.txt", *settings}
    assert set(files(used)) == {*own, "notes.md"}


@pytest.mark.parametrize(
    "mistake", ["workload.requests=many", "cluster.pools.llm.tensor_parallel=3", "model=llama3_405b"]
)
def test_overwriting_by_a_run_that_fails_keeps_the_old_result(mistake: str, used: Path) -> None:
    before = files(used)
    assert in_this_process(used.parent, *SMALL, "output.overwrite=true", mistake).status == 1
    assert files(used) == before


def test_a_run_that_fails_leaves_no_folder(tmp_path: Path) -> None:
    for arguments in (
        ["workload.requests=x"],
        ["hydra.run.dir=a/b/c", "model=llama3_405b"],
        ["compile", "seed=-1"],
    ):
        assert in_this_process(tmp_path, *arguments).status == 1
    for arguments in (["model=lama,llama3_8b"], ["hydra.sweep.dir=a/b", "model=glob(nothing*)"]):
        assert in_this_process(tmp_path, "-m", *arguments).status == 1
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_stays_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert in_this_process(tmp_path, *SMALL, "seed=-1").status == 1
    assert list((tmp_path / "mine").iterdir()) == []


def test_two_commands_at_once_in_one_folder_are_not_possible(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with FolderLock(tmp_path / "mine"):
        for arguments in (SMALL, ("-m", *SMALL, "hydra.sweep.dir=mine")):
            second = in_this_process(tmp_path, *arguments)
            assert second.status == 1
            assert second.err.startswith("hermes-flow: mine: another hermes-flow is writing into this folder")
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_lock_is_free_after_its_end(tmp_path: Path) -> None:
    for _ in range(2):
        with FolderLock(tmp_path), pytest.raises(HermesFlowError), FolderLock(tmp_path):
            pass
    with FolderLock(tmp_path, wait=True):
        pass


@pytest.mark.parametrize("verb", ["compile", "capacity", "plan"])
def test_every_file_of_a_verb_is_known_as_a_result(verb: str, tmp_path: Path) -> None:
    few = [
        "task.hardware=[h100_sxm]",
        "task.tensor_parallel=[1]",
        "task.layouts=[replicas]",
        "task.headrooms=0",
    ]
    keys = {"plan": few, "capacity": ["task.seeds=1", "task.tolerance=0.5", "task.high=8"]}.get(verb, [])
    assert in_this_process(tmp_path, verb, *SMALL, *keys).status == 0
    assert {path.as_posix() for path in own_files(tmp_path / "mine")} == set(files(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("written", "keys"),
    [
        ("fleet.parquet", ["+cluster.pools.llm.failures={events: [{at_s: 1, client: 0, for_s: 1}]}"]),
        (
            "day.parquet",
            ["task=plan", "task.hours=[2,4]", "task.hardware=[h100_sxm]", "task.tensor_parallel=[1]"],
        ),
    ],
)
def test_a_file_that_only_some_runs_write_is_replaced_with_them(
    written: str, keys: list[str], tmp_path: Path
) -> None:
    assert in_this_process(tmp_path, *SMALL, *keys).status == 0
    assert written in files(tmp_path / "mine")
    assert in_this_process(tmp_path, *SMALL, "output.overwrite=true").status == 0
    assert written not in files(tmp_path / "mine")


def test_every_file_of_a_run_is_known_as_a_result(used: Path) -> None:
    assert {path.as_posix() for path in own_files(used)} == set(files(used))
    assert len(set(RESULT_FILES)) == len(RESULT_FILES)


def test_a_run_has_no_keys_of_a_sweep(tmp_path: Path) -> None:
    refused = in_this_process(tmp_path, *SMALL, "sweep.resume=true")
    assert (refused.status, refused.err) == (
        1,
        "hermes-flow: sweep.resume: only a sweep has it; add -m to run one\n",
    )


def test_a_result_written_from_python_keeps_no_table_of_an_earlier_one(used: Path) -> None:
    import hermes_flow as hf

    result = hf.simulate(hf.compile(hf.compose(["workload=synthetic", "workload.requests=2"])))
    written = {path.name for path in result.write(used)}
    assert not {"steps.parquet", "trace.json.gz"} & (written | {path.name for path in used.iterdir()})
    assert json.loads((used / "summary.json").read_text())["requests"]["submitted"] == 2


def test_a_check_that_does_not_hold_keeps_its_results(used: Path) -> None:
    summary = json.loads((used / "summary.json").read_text())
    summary["requests"]["completed"] += 1
    (used / "summary.json").write_text(json.dumps(summary))
    checked = in_this_process(used.parent, "validate", "task.invariants=mine", "hydra.run.dir=check")
    assert checked.status == 1
    assert {"invariants.parquet", "invariants.txt"} <= set(files(used.parent / "check"))
