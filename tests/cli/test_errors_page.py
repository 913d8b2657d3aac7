"""docs/errors.md is what the command really says: every message on it comes from running it.

``HERMES_FLOW_REGENERATE=1 pytest tests/cli/test_errors_page.py`` writes the page anew; read the difference
before you keep it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cli.command import ROOT, Finished

from hermes_flow.cli import main

PAGE = ROOT / "docs" / "errors.md"
TRACE = "arrival_s,input_tokens,output_tokens\n0.0,512,64\n0.5,many,80\n"


@dataclass(frozen=True)
class Mistake:
    """A command, the files that lie where it runs, and what to do about it."""

    command: str
    advice: str = ""
    files: dict[str, str] = field(default_factory=dict)
    status: int = 1


INTRODUCTION = """\
# What does this error mean, and what do I do?

Every mistake gets a message of the same form. It says where the mistake is (the full key, or the file and line), what
is wrong, and what was expected, with the nearest valid name if there is one. The exit status is 1. It is 2 if the
command line itself could not be read, and 130 after Ctrl-C. A run that ends so leaves no tables. Sweeps, `capacity`
and `plan` keep what they have finished, and say how to go on. A traceback is never your mistake; please report it.

Each message below is the answer to the command above it; `tests/cli/test_errors_page.py` runs all of them.
"""

SECTIONS: list[tuple[str, str, list[Mistake]]] = [
    (
        "A name is not known",
        "Groups, their entries and all keys are listed by `hermes-flow --help` and `hermes-flow --cfg job`.",
        [
            Mistake("hermes-flow model=lama3_8b"),
            Mistake("hermes-flow clustr=replicas"),
            Mistake("hermes-flow cluster.pools.llm.cont=8"),
            Mistake("hermes-flow hardware@cluster.pools.hst.hardware=grace_cpu"),
            Mistake(
                "hermes-flow +cluster.pools.llm.bogus=1",
                "A `+` adds a key to a configuration, but nothing would read this key.",
            ),
            Mistake(
                "hermes-flow workload.path=my_trace.csv",
                "The key belongs to another entry of the group, so choose this entry, too.",
            ),
            Mistake(
                "hermes-flow workload=synthetic 'workload.arrivals={process: poisson, cv: 2}'",
                "The same rule holds for a variant inside an entry.",
            ),
        ],
    ),
    (
        "A value is wrong",
        "The name of a key contains its unit, as in `hardware.memory_gb`, `workload.rate_per_s` and `slo.ttft_ms`.",
        [
            Mistake("hermes-flow workload.requests=many"),
            Mistake("hermes-flow workload.rate_per_s=0"),
            Mistake("hermes-flow workload.rate_per_s=0 slo.ttft_ms.p99=-1 cluster.pools.llm.count=0"),
            Mistake("hermes-flow cluster.pools.llm.preemption=swop"),
            Mistake("hermes-flow hardware.bandwidth_gb_s=null"),
            Mistake(
                "hermes-flow cost=affine", "The entry has keys that only you can know; their value is `???`."
            ),
            Mistake("hermes-flow 'model.name=${models.name}'"),
        ],
    ),
    (
        "The command line cannot be read",
        "",
        [
            Mistake("hermes-flow simulat", status=2),
            Mistake("hermes-flow --requests=5", status=2),
            Mistake("hermes-flow workload.rate_per_s=2,4,8"),
            Mistake("hermes-flow 'workload.arrivals={process: gamma, cv: 2'"),
            Mistake("hermes-flow +seed=1"),
            Mistake("hermes-flow --config-dir=nowhere"),
        ],
    ),
    (
        "A file of your own is wrong",
        "`--config-dir` or `hydra.searchpath` finds your files, and the message names the file and the line.",
        [
            Mistake(
                "hermes-flow --config-dir=own model=mine",
                files={"own/model/mine.yaml": "defaults: [llama3_8b, _self_]\nname: mine\nlayers: [32\n"},
            ),
            Mistake(
                "hermes-flow --config-dir=own model=mine",
                files={"own/model/mine.yaml": "defaults: [llama3_8b, _self_]\nname: mine\nlayrs: 48\n"},
            ),
            Mistake(
                "hermes-flow --config-dir=own pipeline=mine",
                files={
                    "own/pipeline/mine.yaml": (
                        "name: mine\nstages:\n  prefill: {kind: prefil}\n  decode: {kind: decode, after: [prefill]}\n"
                    )
                },
            ),
            Mistake(
                "hermes-flow --config-dir=own",
                "Hydra would use the built-in entry and ignore yours.",
                files={"own/slo/chat.yaml": "name: chat\nttft_ms: {p99: 200.0}\n"},
            ),
        ],
    ),
    (
        "A trace cannot be read",
        "[Workloads](workloads.md) describes the formats. The header is line 1.",
        [
            Mistake("hermes-flow workload=trace"),
            Mistake("hermes-flow workload=trace workload.path=my_trace.csv", files={"my_trace.csv": TRACE}),
            Mistake(
                "hermes-flow workload=trace workload.path=my_trace.csv",
                files={"my_trace.csv": TRACE.replace("arrival_s", "time")},
            ),
        ],
    ),
    (
        "The system cannot run",
        "The compiler checks everything before it stops, and lists all problems.",
        [
            Mistake(
                "hermes-flow cluster.pools.llm.count=0 cluster.routing=robin "
                "cluster.pools.llm.tensor_parallel=3 +slo.ttft_ms.q50=300"
            ),
            Mistake("hermes-flow model=llama3_405b", "Or choose hardware with more memory."),
            Mistake("hermes-flow pipeline.stages.tokenize.kind=tokenise '~pipeline.stages.prefill'"),
            Mistake("hermes-flow '+pipeline.stages.tokenize.after=[detokenize]'"),
            Mistake(
                "hermes-flow \"+pipeline.stages.tokenize.when='prompt > 5'\"",
                "Conditions may use only the attributes of a request.",
            ),
            Mistake("hermes-flow model.max_context=5"),
        ],
    ),
    (
        "Jobs of a sweep fail",
        "The other jobs run, and their results are kept. The message of a failed job is in `error.txt` in its folder "
        "and in the column `error` of `sweep.parquet`, and the exit status is 1. A mistake that every job would make "
        "is found before the first one runs. Ctrl-C keeps the jobs that are done.",
        [
            Mistake("hermes-flow -m compile model=llama3_8b,llama3_405b hydra.sweep.dir=fits"),
            Mistake("hermes-flow -m model=llama3_8b,lama3_70b"),
        ],
    ),
]
MISTAKES = [mistake for _, _, mistakes in SECTIONS for mistake in mistakes]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Finished]:
    """What the command says to each mistake, in a folder of its own."""
    return {
        number: answer_to(mistake, tmp_path_factory.mktemp("mistake"))
        for number, mistake in enumerate(MISTAKES)
    }


def answer_to(mistake: Mistake, cwd: Path) -> Finished:
    for name, text in mistake.files.items():
        path = cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    program, *arguments = shlex.split(mistake.command)
    assert program == "hermes-flow"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(arguments)
            status: object = 0
        except SystemExit as leaving:
            status = leaving.code
    assert isinstance(status, int)
    said = re.sub(r", about \d+ \w+ left", ", about 1 s left", out.getvalue())
    return Finished(status, said, err.getvalue())


def page(answers: dict[int, Finished]) -> str:
    parts = [INTRODUCTION]
    numbers = iter(range(len(MISTAKES)))
    for title, introduction, mistakes in SECTIONS:
        parts.append(f"## {title}\n")
        if introduction:
            parts.append(f"{textwrap.fill(introduction, 110)}\n")
        for mistake in mistakes:
            for name, text in mistake.files.items():
                kind = "yaml" if name.endswith(".yaml") else "csv"
                parts.append(f"`{name}`:\n\n```{kind}\n{text}```\n")
            answer = answers[next(numbers)]
            parts.append(f"```console\n$ {mistake.command}\n{answer.out}{answer.err}```\n")
            if mistake.advice:
                parts.append(f"{mistake.advice}\n")
    return "\n".join(parts)


def test_the_page_shows_what_the_command_says(answers: dict[int, Finished]) -> None:
    text = page(answers)
    if os.environ.get("HERMES_FLOW_REGENERATE") == "1":
        PAGE.write_text(text, encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[mistake.command for mistake in MISTAKES])
def test_a_mistake_is_answered_in_our_own_words(number: int, answers: dict[int, Finished]) -> None:
    mistake, answer = MISTAKES[number], answers[number]
    said = answer.out + answer.err
    assert answer.status == mistake.status
    assert "hermes-flow: " in answer.err or "jobs failed" in answer.out
    for leaked in (
        "Traceback",
        "Error executing job",
        "HYDRA_FULL_ERROR",
        "full_key",
        "DictConfig",
        "hydra.cc",
    ):
        assert leaked not in said
    assert all(len(line) <= 80 for line in said.splitlines())


def test_a_message_depends_on_no_machine(answers: dict[int, Finished]) -> None:
    for answer in answers.values():
        assert "/tmp" not in answer.out + answer.err
        assert str(ROOT) not in answer.out + answer.err
        assert str(Path.home()) not in answer.out + answer.err


def test_a_mistake_leaves_no_tables_behind(answers: dict[int, Finished]) -> None:
    assert len(answers) >= 30
    assert not any("Written to outputs" in answer.out for answer in answers.values())
