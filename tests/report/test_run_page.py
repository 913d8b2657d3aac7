"""The page of a run stands alone, says the verdict first, and its numbers are those of the summary."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from dataclasses import replace
from gzip import decompress
from pathlib import Path

import altair as alt
import pytest
from report.page_reading import ReadPage, read_page, values_of

import hermes_flow as hf
from hermes_flow.metrics.number_text import duration, percent
from hermes_flow.metrics.run_files import read_run, run_of
from hermes_flow.metrics.why.words import CAUSE_WORDS
from hermes_flow.report.error_text import bar_text
from hermes_flow.report.pages.run import run_page


@pytest.fixture(scope="module")
def result() -> hf.Result:
    overrides = ["pipeline=rag", "workload.requests=200", "workload.rate_per_s=6"]
    return hf.simulate(hf.compile(hf.compose(overrides)))


@pytest.fixture(scope="module")
def text(result: hf.Result, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = result.report(tmp_path_factory.mktemp("page") / "mine.html")
    assert path.name == "mine.html"
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> ReadPage:
    return read_page(text)


def test_the_page_loads_nothing(page: ReadPage) -> None:
    assert page.loaded == []


def test_the_page_follows_light_dark_phones_and_print(text: str) -> None:
    for rule in (
        "prefers-color-scheme: dark",
        "@media print",
        "@media (max-width: 600px)",
        'name="viewport"',
    ):
        assert rule in text


def test_the_verdict_and_the_bottleneck_come_before_any_figure(result: hf.Result, page: ReadPage) -> None:
    verdict = "is met." if result.summary["slo"]["met"] else "is missed:"
    assert 0 <= page.text.find(f"The SLO rag {verdict}") < page.text.find("requests completed")
    for text in (result.summary["limits"]["text"], result.summary["why"]["text"]):
        assert 0 <= page.text.find(text) < page.text.find("requests completed")


def test_the_causes_of_a_missed_bound_are_drawn_with_their_shares(result: hf.Result, page: ReadPage) -> None:
    causes = result.summary["why"]["causes"]
    assert causes
    drawn = [(row["name"], row["x"]) for row in values_of(page.charts[0])]
    largest = max(causes, key=causes.__getitem__)
    stage, pool, cause = largest.split(".")
    assert drawn[0] == (f"{CAUSE_WORDS[cause]}: {stage} on pool {pool}", causes[largest])


def test_tables_have_the_numbers_of_the_summary(result: hf.Result, page: ReadPage) -> None:
    summary = result.summary
    for metric in ("ttft", "tpot", "itl", "e2e"):
        expected = [duration(summary[f"{metric}_s"][name]) for name in ("mean", "p50", "p90", "p99")]
        assert page.row(metric.upper())[1:5] == expected
        assert page.row(metric.upper())[5] == bar_text(summary, metric)
    for stage, figures in summary["stages"].items():
        assert page.row(stage)[1] == duration(figures["mean_s"])
        assert page.row(stage)[5] == percent(summary["critical_path"]["mean"]["shares"][stage])
    assert page.row("llm")[4] == duration(summary["pools"]["llm"]["queue_mean_s"])


def test_every_chart_is_a_valid_specification_with_data(page: ReadPage) -> None:
    assert len(page.charts) >= 10
    for spec in page.charts:
        alt.Chart.from_dict(spec, validate=True) if "layer" not in spec else alt.LayerChart.from_dict(spec)
        assert values_of(spec)
        assert "url" not in json.dumps(spec.get("data", {}))


def test_the_distributions_pass_through_the_percentiles_of_the_summary(
    result: hf.Result, page: ReadPage
) -> None:
    ttft = next(spec for spec in page.charts if any("curve" in row for row in values_of(spec)))
    points = [row for row in values_of(ttft) if row.get("curve") == "all requests"]
    unit = ttft["layer"][0]["encoding"]["x"]["title"]
    factor = {"s": 1.0, "ms": 1e3, "min": 1 / 60}[unit]
    below = [row["x"] for row in points if row["share"] <= 0.5]
    above = [row["x"] for row in points if row["share"] >= 0.5]
    assert max(below) <= result.summary["ttft_s"]["p50"] * factor * (1 + 1e-9)
    assert min(above) >= result.summary["ttft_s"]["p50"] * factor * (1 - 1e-9)


def test_the_mean_request_ends_at_the_mean_end_to_end_time(result: hf.Result, page: ReadPage) -> None:
    chart = next(spec for spec in page.charts if any(row.get("part") == "waits" for row in values_of(spec)))
    factor = {"s": 1.0, "ms": 1e3, "min": 1 / 60}[chart["encoding"]["x"]["title"].split()[0]]
    end = max(row["to"] for row in values_of(chart)) / factor
    assert end == pytest.approx(result.summary["e2e_s"]["mean"], rel=1e-6)


def test_the_slowest_requests_are_those_of_the_table(result: hf.Result, page: ReadPage) -> None:
    slowest = result.requests.sort("e2e_s", descending=True)["request"].head(20).to_list()
    chart = next(spec for spec in page.charts if any("request" in row for row in values_of(spec)))
    assert chart["encoding"]["y"]["sort"] == [str(request) for request in slowest]


def test_the_trace_in_the_page_is_the_trace_of_the_run(result: hf.Result, text: str, tmp_path: Path) -> None:
    found = re.search(r'id="trace-file">([^<]+)<', text)
    assert found is not None
    result.write(tmp_path, trace=True)
    assert decompress(b64decode(found[1])) == decompress((tmp_path / "trace.json.gz").read_bytes())
    assert "Open the trace in Perfetto" in text


def test_a_folder_gives_the_page_of_the_result(result: hf.Result, tmp_path: Path) -> None:
    result.write(tmp_path, trace=True)
    again = read_page(run_page(read_run(tmp_path)))
    assert again.links == ["trace.json.gz"]
    assert again.row("TTFT") == read_page(result.report(tmp_path).read_text(encoding="utf-8")).row("TTFT")


def test_a_summary_without_tables_still_has_a_page(result: hf.Result, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps(result.summary), encoding="utf-8")
    page = read_page(run_page(read_run(tmp_path)))
    assert len(page.charts) == 1  # the causes, which the summary has
    assert "has no tables of requests and stages" in page.text
    assert page.row("TTFT")[1] == duration(result.summary["ttft_s"]["mean"])


def test_names_from_outside_cannot_break_the_page(result: hf.Result) -> None:
    summary = json.loads(json.dumps(result.summary))
    summary["warnings"] = ["</script><img src=http://evil>"]
    page = read_page(run_page(replace(run_of(result), summary=summary)))
    assert page.loaded == []
    assert "</script><img src=http://evil>" in page.text


def test_a_fleet_is_drawn_by_state_and_its_hours_are_those_of_the_summary() -> None:
    fails = "cluster.pools.llm.failures={events: [{at_s: 4, client: 0, for_s: 3}]}"
    load = ["pipeline=llm", "workload.requests=100", "cluster.pools.llm.count=2"]
    found = hf.simulate(hf.compile(hf.compose([*load, fails])))
    page = read_page(run_page(run_of(found)))
    fleet = found.summary["fleet"]["llm"]
    assert page.row("llm")[2] == "1 to 2"
    assert f"and were available {percent(fleet['availability'])} of the time" in page.text
    drawn = next(
        chart
        for chart in page.charts
        if "state" in chart.get("encoding", {}).get("color", {}).get("field", "")
    )
    rows = values_of(drawn)
    states = {(row["t"], row["state"]): row["clients"] for row in rows}
    assert [states[at, "up"] for at in (0.0, 4.0, 7.0)] == [2, 1, 2]
    assert [states[at, "down"] for at in (0.0, 4.0, 7.0)] == [0, 1, 0]
