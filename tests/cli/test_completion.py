"""Tab completes verbs, groups, entries and keys in a shell that has ``hermes-flow -sc install=bash``."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.command import in_this_process

from hermes_flow.config.completion import with_verb

VERBS = ["capacity", "calibrate", "compile", "simulate"]


@pytest.mark.parametrize(
    ("line", "read", "offered"),
    [
        ("hermes-flow ", "hermes-flow ", ["calibrate", "capacity", "compile", "simulate"]),
        ("hermes-flow ca", "hermes-flow ca", ["calibrate", "capacity"]),
        ("hermes-flow slo=chat com", "hermes-flow slo=chat com", ["compile"]),
        ("hermes-flow capacity task.", "hermes-flow task=capacity task.", []),
        ("hermes-flow capacity ", "hermes-flow task=capacity ", []),
        ("hermes-flow pipeline=ca", "hermes-flow pipeline=ca", []),
    ],
)
def test_the_verb_of_a_line_is_offered_until_it_has_one(line: str, read: str, offered: list[str]) -> None:
    assert with_verb(line, VERBS) == (read, offered)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("hermes-flow cap", ["capacity"]),
        ("hermes-flow capacity task.to", ["task.tolerance="]),
        ("hermes-flow capacity workload.rate_p", ["workload.rate_per_s="]),
        ("hermes-flow hardware=h100", ["hardware=h100_sxm"]),
        ("hermes-flow foo=[ task.", []),
    ],
)
def test_a_shell_is_answered_without_a_word_of_errors(
    line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    answered = in_this_process(tmp_path, "-sc", "query=bash")
    assert (answered.status, answered.err) == (0, "")
    assert [word for word in answered.out.splitlines() if word in expected or not expected] == expected
    assert not list(tmp_path.iterdir())
