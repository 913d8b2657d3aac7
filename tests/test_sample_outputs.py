"""Sample outputs of the pages are what their commands print, and every other one says why it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hermes_flow as hf
from benchmarks import sample_outputs
from benchmarks.sample_pages import pages, samples
from benchmarks.sample_runs import TooLongError, folder_of, printed
from benchmarks.sample_tables import filled, tables
from benchmarks.sample_text import NotShownError, differences, large_changes, refreshed
from hermes_flow.metrics.number_text import duration


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_every_sample_of_the_pages_has_a_command_or_a_reason(path: Path) -> None:
    assert [sample.place for sample in samples(path) if not sample.scripts and not sample.mark] == []


STALE = """\
# A page

```sh
hermes-flow compile workload.requests=20
```

```text
program a_name_of_old: pipeline chat on cluster replicas, seed 0
…
ops
   0  tokenize    on host  mean 999.9 µs of a core
…
```

A task took 999.9 µs.

<!-- not rerun: needs a trace of your own -->
```text
nothing
```
"""


def test_a_stale_sample_is_named_written_and_then_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = page(tmp_path, STALE)
    assert sample_outputs.main([str(path), "--check"]) == 1
    assert path.read_text(encoding="utf-8") == STALE
    said = capsys.readouterr().out
    assert f"{path}:7: stale" in said
    assert f"{path}:18: not run again: needs a trace of your own" in said
    assert "page.md:15 says 999.9 µs, which changed" in said
    assert "0 up to date, 1 stale, 0 failed, 1 not run again" in said
    assert sample_outputs.main([str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "program azure_conv_10_per_s: pipeline chat on cluster replicas, seed 0\n…\n" in text
    assert "999.9 µs of a core" not in text
    assert text.count("\n…\n") == 2
    assert sample_outputs.main([str(path), "--check"]) == 0


def test_commands_find_the_files_of_the_page_and_the_results_of_its_earlier_commands(tmp_path: Path) -> None:
    path = page(
        tmp_path,
        """\
Keep this as `my_conf/slo/quick.yaml`:

```yaml
name: quick
ttft_ms: {p99: 100}
```

<!-- beforehand: echo made > my_file.txt -->
```sh
cat my_conf/slo/quick.yaml my_file.txt
```

```text
```

```sh
echo hydra.run.dir=outputs/one; mkdir -p outputs/one; echo first > outputs/one/said
```

```sh
python3 -m venv .venv && . .venv/bin/activate
python -m pip install . && cat \\
  outputs/one/said
```

```text
```
""",
    )
    assert sample_outputs.main([str(path)]) == 0
    text = path.read_text(encoding="utf-8")
    assert "```text\nname: quick\nttft_ms: {p99: 100}\nmade\n```" in text
    assert "```text\nfirst\n```" in text


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        (
            "```sh\nhermes-flow model=lama3_8b\n```\n\n",
            "its command ends with: hermes-flow: model: there is no",
        ),
        ("Words.\n\n", "no command before it, and no comment"),
        ("```sh\nsleep 9\n```\n\n", "it takes longer than 1 s"),
    ],
)
def test_what_cannot_be_run_fails_and_stays_as_it_is(
    block: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = page(tmp_path, before := f"{block}```text\nnumbers\n```\n")
    assert sample_outputs.main([str(path), "--limit", "1.0" if "sleep" in block else "100"]) == 1
    assert reason in capsys.readouterr().out
    assert path.read_text(encoding="utf-8") == before


def test_a_script_sees_eighty_columns_and_what_it_started_ends_with_it(tmp_path: Path) -> None:
    with folder_of(page(tmp_path, "")) as folder:
        assert printed("echo $COLUMNS; echo wrong >&2; exit 3", folder, 10) == "80\nwrong\n"
        with pytest.raises(TooLongError):
            printed("(sleep 1; touch late) & sleep 9", folder, 0.2)
        assert printed("sleep 1.5; ls", folder, 10) == ""


PRINTED = """\
SLO met.

TTFT   61.5 ms
TPOT   10.6 ms
simulated  7,060 events and 20,036 LLM steps in 55.5 ms

Written to outputs/2026-12-24/13-49-07-069233
"""


def test_dates_and_durations_are_no_change() -> None:
    shown = PRINTED.replace("55.5 ms", "18.7 ms").replace("2026-12-24/13", "2026-11-30/00")
    assert refreshed(shown, PRINTED) == shown
    assert refreshed(shown.replace("61.5", "70.0"), PRINTED) == shown


def test_what_a_sample_leaves_out_stays_out_where_lines_are_more_or_less() -> None:
    shown = "…\nTTFT   70.0 ms\nTPOT   11 ms\n…\nWritten to outputs/2026-11-30/10-00-00-000000\n"
    found = "…\nTTFT   61.5 ms\nTPOT   10.6 ms\n…\nWritten to outputs/2026-11-30/10-00-00-000000\n"
    assert refreshed(shown, PRINTED) == found
    assert refreshed("SLO met.\n…\n", PRINTED) == "SLO met.\n…\n"
    wrapped = "…\nerror bar   mean TPOT 9 ms to 10 ms: this model\n   measured\n…\n"
    assert refreshed(wrapped, "a\nerror bar   mean TPOT 9 ms to 11 ms:\n   this model measured\nb\n") == (
        "…\nerror bar   mean TPOT 9 ms to 11 ms:\n   this model measured\n…\n"
    )


def test_a_sample_of_another_output_is_an_error() -> None:
    with pytest.raises(
        NotShownError, match="nothing in the output resembles the part that begins with 'rank"
    ):
        refreshed("…\nrank  design  price\n…\n", PRINTED)


def test_changes_by_more_than_five_percent_and_of_words_are_marked() -> None:
    old = "TTFT   61.5 ms   113 ms\nverdict met\nE2E   2.29 s\n"
    new = "TTFT   62.0 ms   120 ms\nverdict missed\nE2E   2.30 s\n"
    assert [large for _, _, large in differences(old, new)] == [True, True, False]
    assert large_changes("TTFT   61.5 ms   113 ms", "TTFT   62.0 ms   120 ms") == ["113 ms"]
    assert large_changes("E2E   990 ms", "E2E   1.01 s") == []  # another unit is another word


TABLE = """\
```sh
hermes-flow -m workload.requests=20 workload.rate_per_s=1,4,9
```

<!-- rows: as above
jobs: 2,0
cells: {requests.completed} of {requests.submitted:,} | {workload.no_such or none} | {2*ttft_s.p50/2:time} | = -->
| requests/s | answered | none such | TTFT | remark |
|---|---|---|---|---|
| 9 | 0 of 0 | 1 | 9.9 min | crowded |
| | 20 of 20 | – | 1 s | |
"""


def test_a_table_gets_the_figures_of_its_runs_in_the_order_that_it_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = page(tmp_path, TABLE)
    assert sample_outputs.main([str(path), "--check"]) == 1
    assert sample_outputs.main([str(path)]) == 0
    assert "columns that nothing writes: remark" in capsys.readouterr().out
    crowded, alone = path.read_text(encoding="utf-8").splitlines()[-2:]
    ttft = [
        hf.simulate(hf.compile(hf.compose(["workload.requests=20", f"workload.rate_per_s={rate}"]))).summary
        for rate in (9, 1)
    ]
    assert crowded == f"| 9 | 20 of 20 | – | {duration(ttft[0]['ttft_s']['p50'])} | crowded |"
    assert alone == f"| | 20 of 20 | – | {duration(ttft[1]['ttft_s']['p50'])} | |"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("jobs: 2,0", "jobs: 2", "1 results do not fit 2 rows of 1 each"),
        ("2*ttft_s.p50", "2*tfft_s.p50", "the summary has no figure 'tfft_s.p50'"),
        (
            "as above",
            "hermes-flow workload.requests=none",
            "its command ends with: hermes-flow: workload.requests",
        ),
    ],
)
def test_a_table_that_does_not_fit_its_runs_fails(
    old: str, new: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = page(tmp_path, TABLE.replace(old, new))
    assert sample_outputs.main([str(path)]) == 1
    assert reason in capsys.readouterr().out


def test_slow_tables_are_written_only_where_they_are_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = page(tmp_path, TABLE.replace("rows:", "rows, slow:"))
    assert sample_outputs.main([str(path), "--check"]) == 0
    assert "page.md:8: not run again: it takes minutes (--slow)" in capsys.readouterr().out
    assert sample_outputs.main([str(path), "--check", "--slow"]) == 1


def test_a_dotted_name_finds_keys_with_dots_and_the_least_of_several(tmp_path: Path) -> None:
    for job, figures in enumerate(
        ({"a": {"b.c": 0.5, "d": {"x": {"y": 3}, "z": {"y": 2}}}}, {"a": {"b.c": None}})
    ):
        (tmp_path / "outputs" / "one" / str(job)).mkdir(parents=True)
        (tmp_path / "outputs" / "one" / str(job) / "summary.json").write_text(json.dumps(figures))
    path = page(
        tmp_path,
        "<!-- rows: hermes-flow -m hydra.sweep.dir=outputs/one\n"
        "cells: {a.b.c:.1%} | {a.d.*.y or none} | {#2 a.b.c:time} -->\n| | | | |\n|---|---|---|---|\n| one | | | |\n",
    )
    (table,) = tables(path)
    assert filled(table, tmp_path).splitlines()[-1] == "| one | 50.0 % | 2 | – |"
