from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from hermes_flow.config.compose import compose
from hermes_flow.workload.arrivals import arrival_processes
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.lengths import length_distributions
from hermes_flow.workload.traces import trace_formats

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text()
COMMANDS = re.findall(r"^hermes-flow (?!-m)(.+)$", PAGE, flags=re.MULTILINE)  # but sweeps


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_gives_a_workload(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trace,) = re.findall(r"^```csv\n(.+?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "my_trace.csv").write_text(trace)
    log = trace.replace("arrival_s,input_tokens,output_tokens", "when_ms,prompt_tokens,completion_tokens")
    (tmp_path / "my_log.csv").write_text(log)
    monkeypatch.chdir(tmp_path)
    config = compose(shlex.split(command))
    assert len(build_requests(config.workload, config.workload.seed)) >= 2


def test_the_page_has_commands_to_try() -> None:
    assert len(COMMANDS) >= 12


@pytest.mark.parametrize("registry", [arrival_processes, length_distributions, trace_formats])
def test_every_registered_name_has_a_row_on_the_page(registry: object) -> None:
    names = registry.names  # type: ignore[attr-defined]
    assert names
    for name in names:
        assert re.search(rf"^\| `{name}` \|", PAGE, flags=re.MULTILINE), name
