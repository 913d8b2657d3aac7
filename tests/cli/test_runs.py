from __future__ import annotations

import gzip
import json
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import polars as pl
import pytest
import yaml
from cli.command import Finished, hermes_flow, in_background, in_this_process
from summary_keys import SUMMARY_KEYS

from hermes_flow.machine import engine
from hermes_flow.tasks import verbs

TABLES = {
    "requests": (
        "request pipeline model session arrival_s input_tokens cached_tokens output_tokens first_token_s finish_s "
        "ttft_s tpot_s e2e_s preemptions status slo_met energy_j"
    ),
    "stages": (
        "request stage kind pool client ready_s start_s finish_s queue_s transfer_s service_s tokens bytes energy_j"
    ),
    "clients": (
        "client pool hardware model busy_fraction steps mean_batch kv_peak_fraction tokens energy_j cost_usd"
    ),
}
SUMMARY = {
    **SUMMARY_KEYS,
    "slo": {"attainment", "goodput_requests_per_s"},
    "energy": {"total_j", "j_per_output_token", "idle_j", "unmetered"},
    "cost": {"usd_per_hour", "usd_per_million_output_tokens", "output_tokens_per_usd"},
    "engine": {"events", "steps", "wall_s", "cpu_s"},
}


@pytest.fixture(scope="module")
def cwd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def default(cwd: Path) -> Finished:
    """The command as a newcomer types it first."""
    return hermes_flow(cwd)


@pytest.fixture(scope="module")
def detailed(cwd: Path) -> Finished:
    return in_this_process(cwd, "simulate", "workload.requests=20", "output.steps=true", "output.trace=true")


@pytest.fixture(scope="module")
def compiled(cwd: Path) -> Finished:
    return in_this_process(cwd, "compile", "workload.requests=20")


@pytest.fixture(scope="module")
def helped(cwd: Path) -> Finished:
    return in_this_process(cwd, "--help")


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


SETTINGS = {".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml"}
STANDARD = {*(f"{name}.parquet" for name in TABLES), "summary.json", "program.txt", *SETTINGS}


def test_the_default_run_succeeds_and_says_where_its_files_are(default: Finished) -> None:
    assert (default.status, default.err) == (0, "")
    assert default.out.startswith("SLO chat ")
    assert re.fullmatch(r"outputs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d-\d{6}", str(default.folder))


def test_a_run_writes_its_files_and_no_others(default: Finished, cwd: Path) -> None:
    assert files(cwd / default.folder) == STANDARD


def test_steps_and_trace_are_written_on_request(detailed: Finished, cwd: Path) -> None:
    folder = cwd / detailed.folder
    assert files(folder) == STANDARD | {"steps.parquet", "trace.json.gz"}
    steps = pl.read_parquet(folder / "steps.parquet")
    summary = json.loads((folder / "summary.json").read_text())
    assert len(steps) == summary["engine"]["steps"]
    events = json.loads(gzip.decompress((folder / "trace.json.gz").read_bytes()))
    assert events["traceEvents"]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_has_the_columns_of_the_contract(name: str, default: Finished, cwd: Path) -> None:
    table = pl.read_parquet(cwd / default.folder / f"{name}.parquet")
    assert table.columns == TABLES[name].split()
    assert all(table[column].dtype == pl.Float64 for column in table.columns if column.endswith("_s"))
    assert len(table) == {"requests": 2000, "stages": 8000, "clients": 2}[name]


def test_the_summary_has_the_figures_of_the_contract(default: Finished, cwd: Path) -> None:
    summary = json.loads((cwd / default.folder / "summary.json").read_text())
    for name, entries in SUMMARY.items():
        assert entries <= set(summary[name]), name
    assert set(summary["stages"]) == {"tokenize", "prefill", "decode", "detokenize"}
    assert {"mean_s", "p99_s", "share_of_e2e"} <= set(summary["stages"]["decode"])
    assert summary["requests"] == {"submitted": 2000, "completed": 2000, "failed": 0}


def test_the_settings_lie_beside_the_result(detailed: Finished, cwd: Path) -> None:
    folder = cwd / detailed.folder / ".hydra"
    overrides = yaml.safe_load((folder / "overrides.yaml").read_text())
    assert overrides == ["task=simulate", "workload.requests=20", "output.steps=true", "output.trace=true"]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["workload"]["requests"] == 20
    assert config["model"]["name"] == "llama3_8b"


def test_a_run_can_be_repeated_from_its_settings(detailed: Finished, cwd: Path) -> None:
    overrides = yaml.safe_load((cwd / detailed.folder / ".hydra" / "overrides.yaml").read_text())
    again = in_this_process(cwd, *overrides)
    tables = [(cwd / run.folder / "requests.parquet").read_bytes() for run in (detailed, again)]
    assert tables[0] == tables[1]


def test_compile_prints_the_program_and_runs_nothing(compiled: Finished, cwd: Path) -> None:
    assert (compiled.status, compiled.err) == (0, "")
    assert files(cwd / compiled.folder) == {"program.txt", *SETTINGS}
    text = (cwd / compiled.folder / "program.txt").read_text()
    assert compiled.out.startswith(text.rstrip("\n"))
    assert text.startswith("program azure_conv_10_per_s: pipeline chat on cluster replicas, seed 0\n")


def test_a_run_keeps_the_program_that_compile_prints(
    detailed: Finished, compiled: Finished, cwd: Path
) -> None:
    texts = [(cwd / run.folder / "program.txt").read_text() for run in (detailed, compiled)]
    assert texts[0] == texts[1]


def test_a_verb_is_an_entry_of_the_task_group(compiled: Finished, cwd: Path) -> None:
    other = in_this_process(cwd, "task=compile", "workload.requests=20")
    assert other.out.split("Written")[0] == compiled.out.split("Written")[0]


def test_the_version_is_that_of_the_package(cwd: Path) -> None:
    done = in_this_process(cwd, "--version")
    try:
        expected = version("hermes-flow")
    except PackageNotFoundError:
        expected = "(a checkout that is not installed)"
    core = "core in pure Python" if engine.__file__.endswith(".py") else "compiled core"
    assert done == Finished(0, f"hermes-flow {expected}, {core}\n", "")


def test_no_output_is_wider_than_a_terminal(
    default: Finished, detailed: Finished, compiled: Finished, helped: Finished
) -> None:
    for run in (default, detailed, compiled, helped):
        assert max(len(line) for line in run.out.splitlines()) <= 80


def test_help_names_verbs_groups_entries_and_examples(helped: Finished) -> None:
    assert (helped.status, helped.err) == (0, "")
    assert helped.out.startswith("hermes-flow simulates multi-stage LLM serving")
    after_verbs = helped.out.split("\nverbs\n")[1].split("\n\n")[0]
    assert sorted(line.split()[0] for line in after_verbs.splitlines()) == verbs.names
    groups = re.findall(r"^(\w+): ", helped.out, flags=re.MULTILINE)
    assert {"cluster", "cost", "hardware", "model", "pipeline", "slo", "workload"} <= set(groups)
    assert "llama3_70b" in helped.out
    assert "parameters_b" not in helped.out
    assert len(helped.out.splitlines()) < 75


def test_the_examples_of_the_help_work(helped: Finished, tmp_path: Path) -> None:
    examples = re.findall(r"^  hermes-flow (.+)$", helped.out, flags=re.MULTILINE)
    assert len(examples) == 3
    (tmp_path / "my_trace.csv").write_text("arrival_s,input_tokens,output_tokens\n0.5,100,20\n")
    for example in examples:
        arguments = example.split()
        if "workload=trace" not in arguments:
            arguments.append("workload.requests=3")
        assert in_this_process(tmp_path, *arguments).status == 0


def test_two_runs_at_the_same_time_do_not_overwrite_each_other(tmp_path: Path) -> None:
    running = [in_background(tmp_path, "compile", f"workload.requests={count}") for count in (3, 4)]
    folders = {Finished(0, process.communicate()[0], "").folder for process in running}
    assert len(folders) == 2
    texts = {(tmp_path / folder / "program.txt").read_text().count("schedule: 3") for folder in folders}
    assert texts == {0, 1}


def test_the_folder_of_a_run_can_be_chosen(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "compile", "workload.requests=3", "hydra.run.dir=mine/first")
    assert done.folder == Path("mine/first")
    assert (tmp_path / "mine/first/program.txt").is_file()


def test_entries_of_the_user_are_found_in_a_folder_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "own" / "pipeline").mkdir(parents=True)
    (tmp_path / "own" / "pipeline" / "guarded.yaml").write_text(
        "name: guarded\nstages:\n  guard: {kind: prefill}\n  prefill: {kind: prefill, after: [guard]}\n"
        "  decode: {kind: decode, after: [prefill]}\n"
    )
    for way in (("--config-dir", "own"), ("hydra.searchpath=[own]",)):
        done = in_this_process(tmp_path, "compile", *way, "pipeline=guarded", "workload.requests=3")
        assert (done.status, done.err) == (0, "")
        assert "1  generate  on llm  = prefill + decode  after guard" in done.out


def test_a_mistake_is_a_message_on_standard_error_and_nothing_else(tmp_path: Path) -> None:
    assert hermes_flow(tmp_path, "clustr=x") == Finished(
        1, "", "hermes-flow: clustr: unknown key; did you mean 'cluster'?\n"
    )
    assert hermes_flow(tmp_path, "cluster.pools.llm.tensor_parallel=3", "slo.ttft_ms.x=9") == Finished(
        1,
        "",
        "hermes-flow: 2 problems found:\n"
        "  - cluster.pools.llm.tensor_parallel: 3 does not divide the 32 attention heads\n"
        "    of llama3_8b\n"
        "  - slo.ttft_ms.x: 'x' is not a percentile; expected p50, p90, p99 or the like\n",
    )


def test_options_may_stand_anywhere(tmp_path: Path) -> None:
    done = in_this_process(tmp_path, "workload.requests=3", "-m", "compile", "--config-dir", ".", "seed=1,2")
    assert (done.status, done.err) == (0, "")
    assert done.out.count(" done (") == 2


def test_a_reader_that_stops_early_is_no_error(tmp_path: Path) -> None:
    process = in_background(tmp_path, "compile", "workload.requests=3")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 1
    assert list(tmp_path.glob("outputs/*/*/program.txt"))  # and its result stays
