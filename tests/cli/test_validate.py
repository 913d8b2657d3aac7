"""``hermes-flow validate``: the errors it shows are those that were put into the measurement."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import yaml
from cli.command import Finished
from report.page_reading import read_page, values_of

import hermes_flow as hf
from hermes_flow.cli import main
from hermes_flow.validation.compare import Compared, compare
from hermes_flow.validation.description import read_description

DEPLOYMENT = ["pipeline=llm", "model=llama3_8b", "hardware=a100_sxm", "cluster.pools.llm.max_num_seqs=16"]
SLOWER = 1.25  # the system of these tests takes this much longer than the simulation says


def validate(cwd: Path, *arguments: str) -> Finished:
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(["validate", "hydra.run.dir=out", "output.overwrite=true", *arguments])
        except SystemExit as left:
            status = int(left.code or 0)
    return Finished(status, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def result() -> hf.Result:
    drawn = ["workload=synthetic", "workload.requests=80", "workload.rate_per_s=8"]
    return hf.simulate(hf.compile(hf.compose([*DEPLOYMENT, *drawn])))


@pytest.fixture(scope="module")
def folder(result: hf.Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs that were measured on a system which is slower by a known factor: requests, and statistics."""
    folder = tmp_path_factory.mktemp("runs")
    requests = result.requests
    latency = {f"{name}_ms": requests[f"{name}_s"] * 1e3 * SLOWER for name in ("ttft", "e2e")}
    # in the order of finish, as a load generator writes them
    table = (
        requests.select("arrival_s", "input_tokens", "output_tokens").with_columns(**latency).sort("e2e_ms")
    )
    table.write_csv(folder / "requests.csv")
    table.select(ttft_us=pl.col("ttft_ms") * 900, e2e_us=pl.col("e2e_ms") * 900).write_csv(
        folder / "theirs.csv"
    )
    requests.select("arrival_s", "input_tokens", "output_tokens").write_parquet(folder / "trace.parquet")
    summary = result.summary
    rest = summary["throughput"]["output_tokens_per_s"]
    write(
        folder / "requests.yaml",
        {
            "name": "every request",
            "overrides": DEPLOYMENT,
            "requests": "requests.csv",
            "predictions": {"theirs": {"requests": "theirs.csv"}},
        },
    )
    statistics = {
        "ttft_s": {name: value * SLOWER for name, value in summary["ttft_s"].items()},
        "itl_us": {"p99": summary["itl_s"]["p99"] * 1e6 * SLOWER},
        "e2e_ms": {"p95": result.requests["e2e_s"].quantile(0.95, "linear") * 1e3 * SLOWER},  # type: ignore[operator]
        "output_tokens_per_s": rest / SLOWER,
    }
    theirs = {"theirs": {"statistics": {"ttft_ms": {"mean": summary["ttft_s"]["mean"] * 1e3 * SLOWER * 1.5}}}}
    write(
        folder / "statistics.yaml",
        {
            "overrides": DEPLOYMENT,
            "traces": ["trace.parquet", "trace.parquet"],
            "statistics": statistics,
            "predictions": theirs,
        },
    )
    return folder


@pytest.fixture(scope="module")
def both(folder: Path) -> Finished:
    return validate(folder, "task.runs=[requests.yaml,statistics.yaml]", "hydra.run.dir=both")


def write(path: Path, description: object) -> Path:
    path.write_text(yaml.safe_dump(description), encoding="utf-8")
    return path


def errors(compared: Compared, simulator: str = "hermes_flow") -> dict[tuple[str, str], float]:
    return {
        (row.metric, row.statistic): row.error_percent for row in compared.rows if row.simulator == simulator
    }


def test_the_errors_of_requests_are_those_put_in(folder: Path) -> None:
    compared = compare(read_description(folder / "requests.yaml"))
    found = errors(compared)
    fast = 100 * (1 / SLOWER - 1)
    for metric in ("ttft", "tpot", "e2e"):
        for statistic in ("mean", "p50", "p90", "p99"):
            assert found[metric, statistic] == pytest.approx(fast, abs=1e-3), (metric, statistic)
        assert found[metric, "request_ape_p50"] == pytest.approx(-fast, abs=1e-2)
        assert found[metric, "request_ape_p90"] == pytest.approx(-fast, abs=1e-2)
    # the other simulator's rows are in the order of the measured table, not of arrivals
    assert errors(compared, "theirs")["ttft", "request_ape_p90"] == pytest.approx(10.0, abs=1e-2)
    assert errors(compared, "theirs")["e2e", "mean"] == pytest.approx(-10.0, abs=1e-2)


def test_of_several_draws_each_figure_is_the_median(folder: Path, tmp_path: Path) -> None:
    """Of three draws one is so fast that all queue: it would move the mean, and not the median."""
    few = pl.read_parquet(folder / "trace.parquet").head(30)
    few.write_parquet(tmp_path / "calm.parquet")
    few.with_columns(arrival_s=pl.col("arrival_s") / 1.5).write_parquet(tmp_path / "busy.parquet")
    few.with_columns(arrival_s=pl.col("arrival_s") * 0).write_parquet(tmp_path / "burst.parquet")
    found = []
    for draws in (["busy"], ["calm", "busy", "burst"]):
        description = {
            "overrides": DEPLOYMENT,
            "traces": [f"{draw}.parquet" for draw in draws],
            "statistics": {"ttft_ms": {"mean": 100, "p99": 100}, "output_tokens_per_s": 100},
        }
        found.append(errors(compare(read_description(write(tmp_path / "run.yaml", description)))))
    assert found[0] == found[1]


def test_the_rates_of_requests_count_to_the_last_finish(folder: Path, result: hf.Result) -> None:
    measured = pl.read_csv(folder / "requests.csv")
    last_s = (measured["arrival_s"] + measured["e2e_ms"] / 1e3).max()
    span_s = last_s - measured["arrival_s"].min()  # type: ignore[operator]
    rates = {
        "requests_per_s": len(measured) / span_s,
        "output_tokens_per_s": measured["output_tokens"].sum() / span_s,
    }
    found = errors(compare(read_description(folder / "requests.yaml")))
    for name, rate in rates.items():
        ours = result.summary["throughput"][name]
        assert found[name, "mean"] == pytest.approx(100 * (ours / rate - 1), abs=1e-3)


def test_the_errors_of_statistics_are_those_put_in(folder: Path) -> None:
    compared = compare(read_description(folder / "statistics.yaml"))
    found = errors(compared)
    assert found.pop(("output_tokens_per_s", "mean")) == pytest.approx(100 * (SLOWER - 1), abs=1e-3)
    assert set(found) == {
        *(("ttft", name) for name in ("mean", "p50", "p90", "p99")),
        ("itl", "p99"),
        ("e2e", "p95"),
    }
    assert list(found.values()) == pytest.approx([100 * (1 / SLOWER - 1)] * 6, abs=1e-3)
    assert errors(compared, "theirs") == {("ttft", "mean"): pytest.approx(50.0, abs=1e-3)}


def test_the_command_writes_tables_of_all_runs(folder: Path, both: Finished) -> None:
    done = both
    assert done.status == 0, done.err
    assert "every request: 80 requests" in done.out
    assert "statistics: 80 requests, 2 times" in done.out
    assert "-20.0 %" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    table = pl.read_parquet(folder / "both" / "validation.parquet")
    assert table.columns == [
        "run",
        "metric",
        "statistic",
        "simulator",
        "measured",
        "simulated",
        "error_percent",
        "requests",
    ]
    assert pl.read_csv(folder / "both" / "validation.csv").shape == table.shape
    known = table.drop_nulls("simulated")
    assert len(known) > 20
    assert (100 * (known["simulated"] / known["measured"] - 1) - known["error_percent"]).abs().max() < 1e-9  # type: ignore[operator]
    summary = json.loads((folder / "both" / "summary.json").read_text(encoding="utf-8"))["validation"]
    assert summary["runs"] == 2
    assert summary["mean_size_percent"]["ttft_p90"] == pytest.approx(20.0, abs=1e-3)


def test_the_page_stands_alone_and_draws_each_latency(folder: Path, both: Finished) -> None:
    assert both.status == 0, both.err
    page = (folder / "both" / "validation.html").read_text(encoding="utf-8")
    read = read_page(page)
    assert read.loaded == []
    assert "prefers-color-scheme: dark" in page
    rows = [values_of(chart) for chart in read.charts]
    curves = [{row["curve"] for row in each if "statistic" not in row} for each in rows]
    assert [len(names) for names in curves] == [
        3,
        3,
        3,
        1,
        1,
    ]  # measured, ours, theirs; of statistics only ours
    marks = [[row for row in each if row.get("statistic", "mean") != "mean"] for each in rows]
    assert [len(each) for each in marks] == [0, 0, 0, 3, 1]


def test_a_table_alone_runs_on_the_deployment_of_the_command_line(folder: Path) -> None:
    done = validate(folder, "task.runs=requests.csv", *DEPLOYMENT)
    assert done.status == 0, done.err
    table = pl.read_parquet(folder / "out" / "validation.parquet").filter(pl.col("statistic") == "mean")
    sizes = dict(zip(table["metric"], table["error_percent"], strict=True))
    assert sizes["e2e"] == pytest.approx(-20.0, abs=1e-3)


def test_the_command_line_changes_what_the_description_says(folder: Path) -> None:
    done = validate(folder, "task.runs=requests.yaml", "hardware=h100_sxm")
    assert done.status == 0, done.err
    table = pl.read_parquet(folder / "out" / "validation.parquet")
    mean = table.filter((pl.col("metric") == "tpot") & (pl.col("statistic") == "mean"))
    assert mean["error_percent"][0] < -30  # an H100 is faster than the A100 of the description


def test_models_of_the_users_own_are_found(folder: Path) -> None:
    own = folder / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "defaults: [llama3_8b, _self_]\nname: mine\nlayers: 64\n", encoding="utf-8"
    )
    done = validate(folder, "--config-dir=own", "task.runs=requests.csv", *DEPLOYMENT, "model=mine")
    assert done.status == 0, done.err
    table = pl.read_parquet(folder / "out" / "validation.parquet")
    mean = table.filter((pl.col("metric") == "tpot") & (pl.col("statistic") == "mean"))
    assert mean["error_percent"][0] > 10  # twice the layers


def test_a_run_that_fails_is_named_and_the_others_are_kept(folder: Path) -> None:
    write(folder / "large.yaml", {"overrides": ["model=llama3_70b"], "requests": "requests.csv"})
    try:
        done = validate(folder, "task.runs=[large.yaml,requests.yaml]")
    finally:
        (folder / "large.yaml").unlink()
    assert done.status == 1
    assert "every request: 80 requests" in done.out
    assert "1 of 2 runs could not be validated:" in done.err
    assert "large.yaml: cluster.pools.llm: the weights of llama3_70b" in done.err
    page = (folder / "out" / "validation.html").read_text(encoding="utf-8")
    assert "1 run could not be validated" in page
    assert set(pl.read_parquet(folder / "out" / "validation.parquet")["run"]) == {"every request"}


def edited(**changes: object) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        write(path, {"overrides": DEPLOYMENT, "requests": "requests.csv", **changes})

    return edit


MISTAKES = {
    "a missing table": (edited(requests="request.csv"), "request.csv: no such file in"),
    "a misspelt key": (edited(override=[]), "bad.yaml:1: override: unknown key; did you mean 'overrides'?"),
    "an unknown model": (edited(overrides=["model=lama3_8b"]), "model: there is no 'lama3_8b'; did you mean"),
    "both kinds": (edited(statistics={"ttft_ms": {"mean": 3}}), "requests: both are given"),
    "another workload": (
        edited(overrides=["workload=synthetic"]),
        "overrides: workload=synthetic does not go with a validation, which replays the requests that were",
    ),
    "fewer requests": (
        edited(overrides=["workload.limit=5"]),
        "bad.yaml:1: overrides: workload.limit=5 does not go with a validation, which replays the requests",
    ),
    "a missing prediction": (
        edited(predictions={"theirs": {"requests": "their.csv"}}),
        "bad.yaml:8: predictions.theirs.requests: ",
    ),
    "an unknown statistic": (
        edited(requests=None, statistics={"ttft_ms": {"p100": 3}}),
        "statistics.ttft_ms.p100: unknown statistic; expected mean, p50",
    ),
    "a figure of no metric": (
        edited(requests=None, statistics={"tttf_ms": {"mean": 3}}),
        "statistics.tttf_ms: unknown; did you mean 'ttft_ms'?",
    ),
    "a figure that is none": (
        edited(requests=None, statistics={"ttft_ms": {"mean": -3}}),
        "statistics.ttft_ms.mean: -3 is not a number above 0",
    ),
    "predictions of fewer requests": (
        edited(predictions={"theirs": {"requests": "bad.csv"}}),
        "bad.csv: has 1 rows; expected the 80 requests that were measured",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_where_it_is(folder: Path, mistake: str) -> None:
    edit, expected = MISTAKES[mistake]
    path = folder / "bad.yaml"
    (folder / "bad.csv").write_text("ttft_s\n1\n", encoding="utf-8")
    edit(path)
    try:
        with pytest.raises(hf.HermesFlowError) as raised:
            compare(read_description(path))
    finally:
        path.unlink()
    assert expected in str(raised.value)


def some_blank(folder: Path, to: Path, blank: pl.Expr) -> Path:
    """Write the measured run with the latencies of some requests left blank, and return its description."""
    measured = pl.read_csv(folder / "requests.csv")
    blanks = [pl.when(blank).then(None).otherwise(pl.col(name)).alias(name) for name in ("ttft_ms", "e2e_ms")]
    measured.with_columns(blanks).write_csv(to / "requests.csv")
    return write(to / "run.yaml", {"overrides": DEPLOYMENT, "requests": "requests.csv"})


def test_a_request_that_failed_when_measured_is_left_out(folder: Path, tmp_path: Path) -> None:
    path = some_blank(folder, tmp_path, pl.int_range(pl.len()) == 7)
    found = errors(compare(read_description(path)))
    assert found["ttft", "request_ape_p90"] == pytest.approx(20.0, abs=1e-2)
    assert ("requests_per_s", "mean") not in found


def test_statistics_are_of_the_requests_that_both_sides_have(folder: Path, tmp_path: Path) -> None:
    # the half that took longest failed: their simulated latencies must not stand against the others' measured ones
    slow = pl.col("e2e_ms").rank("ordinal") > 40
    compared = compare(read_description(some_blank(folder, tmp_path, slow)))
    for metric in ("ttft", "tpot", "e2e"):
        for statistic in ("mean", "p50", "p90", "p99"):
            assert errors(compared)[metric, statistic] == pytest.approx(-20.0, abs=1e-3), (metric, statistic)
    assert {row.requests for row in compared.rows if row.metric == "e2e"} == {40}
    assert compared.replayed.requests == 80
    known = pl.read_csv(tmp_path / "requests.csv")["e2e_ms"].mean()
    mean = next(row.measured for row in compared.rows if (row.metric, row.statistic) == ("e2e", "mean"))
    assert mean == pytest.approx(known / 1e3)  # type: ignore[operator]


def test_a_request_that_the_simulator_rejects_counts_on_neither_side(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "requests.csv").read_text(encoding="utf-8")
    (tmp_path / "requests.csv").write_text(lines + "0.5,900000,2,900000,9000000\n", encoding="utf-8")
    theirs = (folder / "theirs.csv").read_text(encoding="utf-8").splitlines()
    blanks = ",\n" * 41
    (tmp_path / "theirs.csv").write_text("\n".join(theirs[:41]) + "\n" + blanks, encoding="utf-8")
    description = {
        "overrides": DEPLOYMENT,
        "requests": "requests.csv",
        "predictions": {"theirs": {"requests": "theirs.csv"}},
    }
    write(tmp_path / "run.yaml", description)
    done = validate(tmp_path, "task.runs=run.yaml")
    assert done.status == 0, done.err
    assert "1 of 81 requests did not complete in the simulation" in done.out
    texts = " ".join(done.out.split())
    assert "compared: TTFT, TPOT, E2E of 80 of 81 requests; the others are blank or failed" in texts
    assert "by theirs: compared: TTFT, TPOT, E2E of 40 of 81 requests" in texts
    page = (tmp_path / "out" / "validation.html").read_text(encoding="utf-8")
    assert "TTFT, TPOT, E2E of 80 of 81 requests" in page
    table = pl.read_csv(tmp_path / "out" / "validation.csv").filter(pl.col("statistic") == "mean")
    sizes = {(row["simulator"], row["metric"]): row for row in table.iter_rows(named=True)}
    assert sizes["hermes_flow", "e2e"]["error_percent"] == pytest.approx(-20.0, abs=1e-3)
    assert sizes["hermes_flow", "e2e"]["requests"] == 80
    assert sizes["theirs", "e2e"]["error_percent"] == pytest.approx(-10.0, abs=1e-3)
    assert ("hermes_flow", "requests_per_s") not in sizes


def test_a_sweep_shows_the_sizes_of_the_errors(folder: Path) -> None:
    done = validate(
        folder, "-m", "hydra.sweep.dir=swept", "task.runs=requests.yaml", "cluster.pools.llm.lookahead=0,1"
    )
    assert done.status == 0, done.err
    swept = pl.read_parquet(folder / "swept" / "sweep.parquet")
    sizes = swept["validation.mean_size_percent.e2e_mean"]
    assert sizes[1] == pytest.approx(20.0, abs=1e-3)
    assert abs(sizes[0] - 20.0) > 0.1  # it hides less of the host
    assert "E2E mean" in done.out
    assert f"{sizes[1]:.1f}" in done.out


REFUSED = {
    "task.runs=requests.csv workload=trace workload.path=requests.csv": "workload=trace does not go with a",
    "task.runs=requests.csv workload=synthetic": "requests.csv: workload=synthetic does not go with a validation",
    "task.runs=[requests.csv,same/requests.csv]": (
        "'requests' is the name of 2 runs, requests.csv and same/requests.csv; expected a name of its own"
    ),
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_a_command_that_cannot_be_meant_is_refused(folder: Path, arguments: str) -> None:
    (folder / "same").mkdir(exist_ok=True)
    (folder / "same" / "requests.csv").write_bytes((folder / "requests.csv").read_bytes())
    done = validate(folder, *DEPLOYMENT, *arguments.split())
    assert done.status > 0
    assert REFUSED[arguments] in " ".join(done.err.split())


def test_a_benchmark_log_is_validated_without_another_key(tmp_path: Path) -> None:
    cases = Path(__file__).parents[1] / "workload" / "cases"
    for name in ("low", "high"):
        (tmp_path / "logs" / name).mkdir(parents=True)
        shutil.copy(cases / "vllm_bench.json", tmp_path / "logs" / name / "bench.json")
    (tmp_path / "logs" / "notes.json").write_text("{}")
    done = validate(tmp_path, f"task.runs={tmp_path}/logs", "pipeline=llm")
    assert "high/bench: 20 requests" in done.out
    assert "low/bench: 20 requests" in done.out
