"""Some 300 random cases keep the promises of docs/trust.md; ``nox -s fuzz`` runs many more of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cli.command import in_this_process
from tries import tries

import hermes_flow as hf
from benchmarks.fuzz.case import case
from benchmarks.fuzz.model_files import random_files
from benchmarks.fuzz.outcome import Outcome, Try, attempt, unclear
from benchmarks.fuzz.traces import random_trace
from hermes_flow.config.hugging_face import entry_of
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.workload.build import build_requests


@pytest.mark.parametrize("block", range(6))
def test_random_cases_keep_every_promise(block: int) -> None:
    each = tries(5, of=50)
    broken = [outcome for seed in range(block * 50, block * 50 + each) if (outcome := case(seed)).broken]
    assert not broken


def unclear_refusal(read: Callable[[], object], names: str) -> str | None:
    """What is wrong with the message of the error that ``read`` raises; "read" where it raises none."""
    try:
        read()
    except hf.HermesFlowError as error:
        return unclear(str(error), [], names)
    return "read"


def test_random_traces_are_read_or_refused_by_their_name(tmp_path: Path) -> None:
    def read(path: Path) -> None:
        requests = build_requests(TraceWorkload(kind="trace", name="test", path=str(path)), 0)
        assert (requests.arrival_ns >= 0).all()
        assert requests.input_tokens.min() >= 1

    found = []
    for seed in range(tries(120, of=2000)):
        trace = random_trace(random.Random(f"trace {seed}"))
        path = trace.write(tmp_path, trace.parts)
        found.append(unclear_refusal(partial(read, path), path.name))
    assert set(found) == {None, "read"}


def test_random_files_of_models_are_read_or_refused_by_their_name(tmp_path: Path) -> None:
    found = []
    for seed in range(tries(150, of=2000)):
        files = random_files(random.Random(f"model {seed}"))
        folder = tmp_path / str(seed)
        folder.mkdir()
        files.write(folder, files.changes)
        found.append(unclear_refusal(partial(entry_of, folder), folder.name))
    assert set(found) == {None, "read"}


@pytest.mark.parametrize("override", ["=", "=b", "~"])
def test_an_override_without_a_key_says_what_is_expected(override: str) -> None:
    """The fuzz found these: the message was Hydra's own."""
    with pytest.raises(hf.HermesFlowError, match="an override has no key; expected key=value"):
        hf.compose([override])


def test_a_factor_beyond_every_float_says_what_is_expected() -> None:
    """The fuzz found this: a traceback, as the number was taken for a percentage."""
    key = "hardware.efficiency.gemm.fp8.quantize"
    with pytest.raises(hf.HermesFlowError, match=rf"{key}: a number of 401 digits is out of range; expected"):
        hf.compose([f"{key}={10**400}"])


def test_a_stage_of_an_unknown_outcome_of_a_route_by_load_is_named() -> None:
    """The fuzz found this: a traceback of the compiler."""
    config = hf.compose(["pipeline=routed_by_load", "pipeline.stages.ask_large.route.model=lage"])
    with pytest.raises(
        hf.CompileError, match=r"ask_large.route.model: it has no outcome 'lage'; did you mean"
    ):
        hf.compile(config)


@pytest.mark.parametrize("entries", ["7", "[a, [b]]", "[{slo: [a, [b]]}]", "[{slo: 3}]", "[{1: 2}]"])
def test_a_defaults_list_that_cannot_be_read_names_its_file(entries: str, tmp_path: Path) -> None:
    (tmp_path / "slo").mkdir()
    (tmp_path / "slo" / "mine.yaml").write_text(f"defaults: {entries}\nname: mine\n")
    with pytest.raises(hf.HermesFlowError, match=r"slo/mine.*(defaults list cannot be read|defaults name)"):
        hf.compose(["slo=mine"], tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [replicas, _self_]\npools: [[1]]\n",
        "defaults: [{/pool@pools.store: store}, replicas]\npools: [1]\n",
    ],
)
def test_a_list_in_place_of_pools_names_the_file_and_what_is_expected(text: str, tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text(f"{text}name: mine\n")
    expected = r"^cluster/mine\.yaml: a list is not allowed here; expected a mapping, as in \{key: value\}$"
    with pytest.raises(hf.HermesFlowError, match=expected):
        hf.compose(["cluster=mine"], tmp_path)


def test_report_has_no_sweep_and_leaves_nothing(tmp_path: Path) -> None:
    refused = in_this_process(tmp_path, "report", "-m")
    assert (refused.status, list(tmp_path.iterdir())) == (1, [])
    assert "leave out -m" in refused.err


def test_a_case_that_breaks_a_promise_is_made_small() -> None:
    assert attempt(["workload.requests=3"]).ran
    refused = attempt(["workload.requests=3", "cluster.pools.llm.count=0"])
    assert (refused.ran, refused.broken) == (False, None)

    def run(parts: tuple[str, ...]) -> Outcome:
        return Outcome(parts, False, "both" if {"a", "b"} <= set(parts) else None)

    assert Try("overrides", ("x", "a", "y", "b", "a"), run).smallest() == ("b", "a")
