"""An error inside a user's plug-in names what failed, its file and its line, in two lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from cli.command import ROOT, hermes_flow, in_this_process, plugins_forgotten

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(\"\"\".*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
SMALL = ("workload=synthetic", "workload.requests=20", "slo=none")

ARCHIVED = """
name: archived
stages:
  prefill: {kind: prefill}
  decode: {kind: decode, after: [prefill]}
  archive: {kind: archive, after: [decode], call_ms: 250}
"""


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is forgotten when it is over."""
    with plugins_forgotten():
        yield


def example(registered: str) -> str:
    """Return the module of the page that registers this name."""
    (found,) = (text for text in PYTHON if f'.register("{registered}")' in text)
    return found


def broken(registered: str, before: str, statement: str = "1 / 0") -> tuple[str, int]:
    """Return the example with a failing statement before a line, and that statement's line."""
    lines = example(registered).splitlines()
    (place,) = (index for index, line in enumerate(lines) if line.strip() == before)
    indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
    lines.insert(place, indent + statement)
    return "\n".join(lines) + "\n", place + 1


# What is registered, the line before which it fails, the function that this is in, and what makes it run.
RUNNING = {
    "batching policy 'one_by_one'": (
        "return decode_all(client)",
        "plan",
        "cluster.pools.llm.batching=one_by_one",
    ),
    "routing policy 'two_choices'": (
        "drawn: list[int] = rng.integers(0, len(clients), size=2).tolist()",
        "choose",
        "cluster.routing=two_choices",
    ),
    "packing order 'short_classes'": (
        "return tasks.prompt[task] // self.class_tokens",
        "key",
        "cluster.pools.llm.packing=short_classes",
    ),
    "arrival process 'evening'": (
        "passed = np.cumsum(rng.standard_exponential(requests)) / requests",
        "instants_s",
        "workload.arrivals=evening",
    ),
    "stage kind 'archive'": (
        "return np.full(len(sizes.input_tokens), round(self.call_ms * 1e6), dtype=np.int64)",
        "service_ns",
        "pipeline=archived",
    ),
}


def arguments(folder: Path, text: str, asked: str) -> list[str]:
    (folder / "mine.py").write_text(text)
    (folder / "my_conf" / "pipeline").mkdir(parents=True, exist_ok=True)
    (folder / "my_conf" / "pipeline" / "archived.yaml").write_text(ARCHIVED)
    host = ["cluster.pools.host.serves=[archive]"] if "archived" in asked else []
    return ["--config-dir", "my_conf", "plugins=[mine.py]", *SMALL, "cluster.pools.llm.count=2", asked, *host]


@pytest.mark.parametrize("what", RUNNING)
def test_at_run_time(tmp_path: Path, what: str) -> None:
    before, function, asked = RUNNING[what]
    text, line = broken(what.split("'")[1], before)
    done = in_this_process(tmp_path, *arguments(tmp_path, text, asked))
    assert done.status == 1
    assert done.err == (
        f"hermes-flow: the {what} failed: ZeroDivisionError: division by zero\n"
        f"  {tmp_path}/mine.py:{line}, in {function} (HYDRA_FULL_ERROR=1 shows the traceback)\n"
    )


@pytest.mark.parametrize("what", RUNNING)
def test_at_parse(tmp_path: Path, what: str) -> None:
    _, _, asked = RUNNING[what]
    text = example(what.split("'")[1])
    text += "\n    def __post_init__(self):\n        raise ValueError('no such moon')\n"
    done = in_this_process(tmp_path, *arguments(tmp_path, text, asked))
    line = len(text.splitlines())
    assert done.status == 1
    assert done.err == (
        f"hermes-flow: the {what} failed: ValueError: no such moon\n"
        f"  {tmp_path}/mine.py:{line}, in __post_init__ (HYDRA_FULL_ERROR=1 shows the traceback)\n"
    )


@pytest.mark.parametrize("what", RUNNING)
def test_at_registration(tmp_path: Path, what: str) -> None:
    _, _, asked = RUNNING[what]
    text = example(what.split("'")[1]) + "\n\nlowest = min([])\n"
    done = in_this_process(tmp_path, *arguments(tmp_path, text, asked))
    assert done.status == 1
    first, second = done.err.splitlines()
    assert first.startswith("hermes-flow: the plug-in mine.py failed: ValueError: min()")
    assert second == f"  {tmp_path}/mine.py:{len(text.splitlines())} (HYDRA_FULL_ERROR=1 shows the traceback)"


@pytest.mark.parametrize(
    ("registered", "method", "lacking"),
    [
        ("one_by_one", "plan", "OneByOne, a batching policy, has no plan"),
        ("two_choices", "start", "TwoChoices, a routing policy, has no start"),
        ("short_classes", "key", "ShortClasses, a packing order, has no key"),
        ("evening", "arrivals", "Evening, an arrival process, has no arrivals"),
    ],
)
def test_a_missing_method_is_found_at_registration(
    tmp_path: Path, registered: str, method: str, lacking: str
) -> None:
    text = example(registered).replace(f"def {method}(", f"def {method}_(")
    done = in_this_process(tmp_path, *arguments(tmp_path, text, "pipeline=llm"))
    assert done.status == 1
    line = next(i for i, found in enumerate(text.splitlines(), 1) if ".register(" in found)
    assert done.err == (
        f"hermes-flow: the plug-in mine.py failed: TypeError: {lacking}\n"
        f"  {tmp_path}/mine.py:{line} (HYDRA_FULL_ERROR=1 shows the traceback)\n"
    )


def test_the_traceback_is_shown_on_request(tmp_path: Path) -> None:
    what = "batching policy 'one_by_one'"
    text, line = broken("one_by_one", RUNNING[what][0])
    given = arguments(tmp_path, text, RUNNING[what][2])
    done = hermes_flow(tmp_path, *given, HYDRA_FULL_ERROR="1")
    assert done.status == 1
    assert "Traceback (most recent call last):" in done.err
    assert f'File "{tmp_path}/mine.py", line {line}, in plan\n    1 / 0' in done.err
    assert done.err.splitlines()[-2] == f"hermes-flow: the {what} failed: ZeroDivisionError: division by zero"


def test_an_error_below_a_wrong_call_is_the_plug_ins(tmp_path: Path) -> None:
    text, line = broken("one_by_one", "return decode_all(client)", "client.commit_step([(1, 2, 3)], 0, [])")
    done = in_this_process(tmp_path, *arguments(tmp_path, text, "cluster.pools.llm.batching=one_by_one"))
    assert done.status == 1
    assert done.err.splitlines() == [
        "hermes-flow: the batching policy 'one_by_one' failed: ValueError: too many values to unpack (expected 2)",
        f"  {tmp_path}/mine.py:{line}, in plan (HYDRA_FULL_ERROR=1 shows the traceback)",
    ]


def test_a_sweep_goes_on_and_keeps_the_traceback(tmp_path: Path) -> None:
    text, line = broken("one_by_one", "return decode_all(client)")
    given = arguments(tmp_path, text, "cluster.pools.llm.batching=chunked,one_by_one")
    done = in_this_process(tmp_path, "-m", *given)
    assert done.status == 1
    assert f"mine.py:{line}, in plan: the" in " ".join(done.out.split())
    sweep = pl.read_parquet(next(tmp_path.glob("outputs/*/*-sweep/sweep.parquet")))
    assert len(sweep) == 2
    (kept,) = tmp_path.glob("outputs/*/*-sweep/1/error.txt")
    assert f'mine.py", line {line}, in plan' in kept.read_text()
