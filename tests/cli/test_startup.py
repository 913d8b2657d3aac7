"""The command starts quickly: it imports what it uses, and its help composes nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hermes_flow.cli import main

# Verbs, file formats and pages that the default job does not have, and libraries that only these need.
OTHERS = (
    "altair",
    "scipy",
    "rich",
    "hermes_flow.calibration",
    "hermes_flow.planning",
    "hermes_flow.validation",
    "hermes_flow.config.hugging_face.read",
    "hermes_flow.cost.kernels",
    "hermes_flow.metrics.sweep",
    "hermes_flow.report.pages",
    "hermes_flow.report.sweep_table",
    "hermes_flow.workload.traces",
)


def imported(tmp_path: Path, *arguments: str) -> set[str]:
    """Return the modules that a process has imported when the command is done."""
    code = "import sys; from hermes_flow.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    return set(ended.stderr.split())


def test_the_help_needs_no_library_but_the_reader_of_yaml(tmp_path: Path) -> None:
    modules = imported(tmp_path, "--help")
    assert "yaml" in modules
    assert not modules & {"hydra", "omegaconf", "numpy", "polars"}
    assert {name for name in modules if name.startswith("hermes_flow.")} == {
        "hermes_flow.cli",
        "hermes_flow.config",
        "hermes_flow.config.folders",
        "hermes_flow.config.help_text",
        "hermes_flow.errors",
    }


def test_the_default_job_imports_only_what_it_uses(tmp_path: Path) -> None:
    modules = imported(tmp_path, "workload.requests=20")
    assert "polars" in modules
    assert not modules & set(OTHERS)


def test_the_help_of_a_verb_lists_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    main(["capacity", "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "usage: hermes-flow capacity [group=entry …] [key=value …]"
    assert any(line.startswith("task.tolerance: 0.02 # the search ends") for line in lines)


def test_the_help_lists_entries_and_verbs_of_a_users_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "slo").mkdir()
    (tmp_path / "slo" / "ours.yaml").write_text("name: ours\n")
    main(["--config-dir", str(tmp_path), "--help"])
    lines = capsys.readouterr().out.replace("\n  ", " ").splitlines()
    entries = next(line.removeprefix("slo: ") for line in lines if line.startswith("slo: "))
    assert {"chat", "ours"} <= set(entries.split(", "))


def test_the_help_of_a_mistake_is_its_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help", "pipeline=no_such"])
    assert "pipeline: there is no 'no_such'" in capsys.readouterr().err
