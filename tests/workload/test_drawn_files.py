"""Loads that files of other tools describe are drawn as they say; prompts repeat; Weibull gaps have their spread."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hermes_flow as hf
from hermes_flow.config.schema import TraceWorkload
from hermes_flow.errors import HermesFlowError
from hermes_flow.program.prefixes import SessionPrefixes
from hermes_flow.program.requests import Requests
from hermes_flow.workload.arrivals.weibull import Weibull
from hermes_flow.workload.build import build_requests
from hermes_flow.workload.drawn import drawn_formats

S = 10**9


def read(path: Path | str, **keys: Any) -> Requests:
    return build_requests(TraceWorkload(kind="trace", name="test", path=str(path), **keys), 0)


def problem(path: Path, **keys: Any) -> str:
    with pytest.raises(HermesFlowError) as caught:
        read(path, **keys)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.5])
def test_weibull_gaps_have_the_mean_of_the_rate_and_their_coefficient_of_variation(cv: float) -> None:
    gaps = np.diff(Weibull(cv=cv).instants_s(200_000, 4.0, np.random.default_rng(1)), prepend=0.0)
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_a_weibull_shape_of_one_is_poisson() -> None:
    instants = [
        Weibull(**keys).instants_s(50, 1.0, np.random.default_rng(3))
        for keys in ({"shape": 1.0}, {"cv": 1.0})
    ]
    assert instants[0] == pytest.approx(np.cumsum(np.random.default_rng(3).weibull(1.0, 50)))
    assert instants[1] == pytest.approx(instants[0], rel=1e-9)


@pytest.mark.parametrize(
    "keys", ["{process: weibull}", "{process: weibull, cv: 1, shape: 1}", "{process: weibull, cv: 99}"]
)
def test_a_weibull_process_needs_one_possible_figure(keys: str) -> None:
    with pytest.raises(HermesFlowError, match=r"workload\.arrivals\.cv"):
        hf.compile(hf.compose([f"workload.arrivals={keys}"]))


def repeated(*overrides: str) -> hf.Result:
    prompts = "workload.repeated_prompts={prefixes: 2, per_prefix: 3, prefix_tokens: 64}"
    fixed = [
        "workload.input_tokens=32",
        "workload.output_tokens=4",
        "workload.requests=12",
        "workload.rate_per_s=1",
    ]
    return hf.simulate(
        hf.compile(hf.compose(["pipeline=llm", "workload=synthetic", prompts, *fixed, *overrides]))
    )


def test_prompts_that_repeat_are_found_again_but_for_their_last_token() -> None:
    table = repeated("cluster.pools.llm.prefix_cache=true").requests
    assert table["input_tokens"].to_list() == [96] * 12
    # Each prefix is computed once, each of the six prompts once, and then the last of six blocks again and again.
    assert table["cached_tokens"].to_list() == [0, 0, *[64] * 4, *[80] * 6]
    assert repeated("cluster.pools.llm.prefix_cache=false").requests["cached_tokens"].sum() == 0


SERVEGEN = "0,0,0,,0,0\n600,2.0,1.0,Gamma,1.0,0.5\n1200,4.0,2.0,Weibull,0.5,0.1\n1800,0,0,,0,0\n"


def servegen(folder: Path, trace: str = SERVEGEN, chunk: int = 0) -> Path:
    lengths = {"0": {"input_tokens": "{}", "output_tokens": "{}"}}
    lengths["600"] = {"input_tokens": "{100: 0.25, 200: 0.75}", "output_tokens": "{7: 1.0}"}
    lengths["1200"] = {"input_tokens": "{300: 1.0}", "output_tokens": "{9: 1.0}"}
    (folder / f"chunk-{chunk}-dataset.json").write_text(json.dumps(lengths))
    (folder / f"chunk-{chunk}-trace.csv").write_text(trace)
    return folder / f"chunk-{chunk}-trace.csv"


def test_windows_of_servegen_have_their_rate_their_gaps_and_their_lengths(tmp_path: Path) -> None:
    requests = read(servegen(tmp_path))
    first = requests.arrival_ns < 1200 * S
    assert requests.arrival_ns.min() >= 600 * S
    assert requests.arrival_ns.max() <= 1800 * S
    assert int(first.sum()) == pytest.approx(1200, rel=0.1)
    assert int((~first).sum()) == pytest.approx(2400, rel=0.15)
    assert set(requests.input_tokens[first].tolist()) == {100, 200}
    assert (requests.input_tokens[first] == 200).mean() == pytest.approx(0.75, abs=0.05)
    assert set(requests.input_tokens[~first].tolist()) == {300}
    gaps = np.diff(requests.arrival_ns[~first])
    weibull = math.sqrt(math.gamma(5.0) / math.gamma(3.0) ** 2 - 1.0)  # of shape 0.5
    assert gaps.std() / gaps.mean() == pytest.approx(weibull, rel=0.15)


def test_clients_of_servegen_come_together_and_a_window_is_chosen_by_seconds(tmp_path: Path) -> None:
    one = read(servegen(tmp_path), start=900.0, duration=300.0)
    assert one.arrival_ns.max() <= 300 * S
    assert len(one) == pytest.approx(600, rel=0.15)
    servegen(tmp_path, chunk=1)
    both = read(tmp_path, start=900.0, duration=300.0)
    assert len(both) == pytest.approx(1200, rel=0.1)
    assert np.array_equal(both.arrival_ns, np.sort(both.arrival_ns))
    assert len(read(tmp_path, limit=10)) == 10
    assert read(tmp_path, seed=1).arrival_ns[0] != read(tmp_path, seed=2).arrival_ns[0]


@pytest.mark.parametrize(
    ("trace", "keys", "message"),
    [
        (
            "0,2,1,Pareto,1,1\n600,0,0,,0,0\n",
            {},
            "chunk-0-trace.csv:1: 'Pareto' with shape 1; expected Gamma or Weibull",
        ),
        (
            "0,1,1,Gamma,1,1\n0,1,1,Gamma,1,1\n",
            {},
            "chunk-0-trace.csv:1: the window begins at 0 s, and the next one",
        ),
        (SERVEGEN, {"start": 5000.0}, "chunk-0-trace.csv: has no request in this window"),
        (SERVEGEN, {"start": "2024-05-12"}, "workload.start: '2024-05-12' is a date; expected seconds"),
        (SERVEGEN, {"time_unit": "ms"}, "workload.time_unit: has no effect on workload.format=servegen"),
        (
            SERVEGEN,
            {"rate_scale": 1e6},
            "workload.duration: gives about 3,600,000,000 requests; set a shorter one",
        ),
    ],
)
def test_what_servegen_cannot_mean_is_refused(
    trace: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    assert problem(servegen(tmp_path, trace), **keys).startswith(message)


def yaml(folder: Path, text: str) -> Path:
    (folder / "load.yaml").write_text(text)
    return folder / "load.yaml"


STAGES = "load: {type: constant, interval: 5, stages: [{rate: 2, duration: 10}, {rate: 4, duration: 5}]}\n"


_TOKENS = "{min: 10, max: 20, mean: 15, std_dev: 2}"
RANDOM = f"data: {{type: random, input_distribution: {_TOKENS}, output_distribution: {_TOKENS}}}\n"


def test_stages_and_shared_prefixes_of_inference_perf_are_replayed(tmp_path: Path) -> None:
    shared = (
        "{num_groups: 2, num_prompts_per_group: 3, system_prompt_len: 100, question_len: 50, output_len: 20}"
    )
    requests = read(
        yaml(tmp_path, STAGES + f"data: {{type: shared_prefix, shared_prefix: {shared}}}\nserver: {{}}\n")
    )
    # inference-perf calls this load constant: 20 requests in each stage, with exponential gaps, the last at its end
    assert len(requests) == 40
    assert requests.arrival_ns[[19, 39]].tolist() == [10 * S, 20 * S]
    assert requests.arrival_ns[20] > 15 * S
    assert [note for note in requests.notes if "inference-perf also waits for the last answers" in note]
    assert len(set(np.diff(requests.arrival_ns[:20]).tolist())) == 19
    assert set(requests.input_tokens.tolist()) == {150}
    assert set(requests.output_tokens.tolist()) == {20}
    assert requests.prefixes is not None
    assert requests.prefixes.full_blocks(0, 50, 150) == 3


@pytest.mark.parametrize(("given", "last_s"), [("0", 15), ("2.5", 17.5), ("null", 16)])
def test_the_pause_between_stages_of_inference_perf_is_a_second_unless_it_is_given(
    given: str, last_s: float, tmp_path: Path
) -> None:
    path = tmp_path / "load.yaml"
    path.write_text(STAGES.replace("interval: 5", f"interval: {given}") + RANDOM)
    assert read(path).arrival_ns[-1] == pytest.approx(last_s * S, abs=2)


@pytest.mark.parametrize("given", ["-2", "soon", "false", ".inf"])
def test_a_pause_that_is_no_time_is_named(given: str, tmp_path: Path) -> None:
    path = tmp_path / "load.yaml"
    path.write_text(STAGES.replace("interval: 5", f"interval: {given}") + RANDOM)
    assert "load.interval is" in problem(path)


def test_a_concurrent_load_of_inference_perf_is_a_closed_loop_with_drawn_lengths(tmp_path: Path) -> None:
    lengths = "{min: 10, max: 90, mean: 50, std_dev: 10}"
    load = "load: {type: concurrent, stages: [{concurrency_level: 3, num_requests: 400}]}\n"
    data = f"data: {{type: random, input_distribution: {lengths}, output_distribution: {lengths}}}\n"
    requests = read(yaml(tmp_path, load + data))
    assert (len(requests), requests.concurrency) == (400, 3)
    assert requests.input_tokens.mean() == pytest.approx(50, abs=2)
    assert requests.input_tokens.std() == pytest.approx(10, abs=1.5)


@pytest.mark.parametrize("key", ["concurrency_level", "num_requests"])
@pytest.mark.parametrize("given", ["2.7", "0.5", "0"])
def test_counts_of_a_concurrent_load_are_whole(key: str, given: str, tmp_path: Path) -> None:
    stage = {"concurrency_level": "3", "num_requests": "400"} | {key: given}
    stages = ", ".join(f"{name}: {value}" for name, value in stage.items())
    path = tmp_path / "load.yaml"
    path.write_text(f"load: {{type: concurrent, stages: [{{{stages}}}]}}\n{RANDOM}")
    assert f"load.stages.{key} is {given}" in problem(path)


def test_the_spellings_of_inference_perfs_own_examples_are_read(tmp_path: Path) -> None:
    """The keys are those of examples/vllm/config-random.yml and config-shared-prefix-distributions.yml."""
    lengths = "{min: 10, max: 100, mean: 50, std: 10, total_count: 100}"
    load = "load: {type: constant, stages: [{rate: 10, duration: 40}]}\n"
    data = f"data: {{type: random, input_distribution: {lengths}, output_distribution: {lengths}}}\n"
    requests = read(yaml(tmp_path, load + data))
    assert requests.input_tokens.std() == pytest.approx(10, abs=1.5)
    long = "{distribution: lognormal, mean: 150, std_dev: 60, min: 1, max: 4096}"
    users = "num_unique_system_prompts: 10, num_users_per_system_prompt: 10, system_prompt_len: 100"
    shared = f"{{seed: 42, {users}, question_len: 50, output_len: {long}}}"
    requests = read(yaml(tmp_path, load + f"data: {{type: shared_prefix, shared_prefix: {shared}}}\n"))
    assert set(requests.input_tokens.tolist()) == {150}
    assert requests.output_tokens.mean() == pytest.approx(150, rel=0.1)
    assert requests.output_tokens.std() == pytest.approx(60, rel=0.2)


BLIS = """
version: "2"
aggregate_rate: 20.0
num_requests: 600
clients:
  - id: short
    rate_fraction: 0.75
    arrival: {process: poisson}
    input_distribution: {type: constant, params: {value: 10}}
    output_distribution: {type: exponential, params: {mean: 30}}
  - id: long
    rate_fraction: 0.25
    slo_class: batch
    arrival: {process: weibull, cv: 2.0}
    prefix_group: docs
    prefix_length: 500
    input_distribution: {type: empirical, params: {40: 0.5, 60: 0.5}}
    output_distribution: {type: gaussian, params: {mean: 8, std_dev: 1, min: 2, max: 12}}
"""


def test_clients_of_blis_share_the_rate_and_their_prefix(tmp_path: Path) -> None:
    requests = read(yaml(tmp_path, BLIS))
    assert len(requests) == 600
    assert requests.arrival_ns[-1] / S == pytest.approx(30, rel=0.2)
    assert set(requests.input_tokens.tolist()) == {10, 540, 560}
    assert (requests.input_tokens > 10).mean() == pytest.approx(0.25, abs=0.08)
    assert requests.notes == ("workload.path: slo_class of the clients is not used",)
    assert requests.prefixes is not None
    long = np.flatnonzero(requests.input_tokens > 10)[:2]
    keys = [list(requests.prefixes.block_keys(int(request), 100, 500)) for request in long]
    assert keys[0] == keys[1]


def test_the_first_requests_of_a_drawn_load_keep_their_prefixes(tmp_path: Path) -> None:
    path = yaml(tmp_path, BLIS)
    program = hf.compile(hf.compose(["workload=trace", f"workload.path={path}", "workload.limit=50"]))
    whole, prefixes = read(path).prefixes, program.requests.prefixes
    assert isinstance(whole, SessionPrefixes)
    assert isinstance(prefixes, SessionPrefixes)
    assert len(program.requests) == len(prefixes.session) == len(prefixes.output_tokens) == 50
    assert prefixes.system_prompt.tolist() == whole.system_prompt[:50].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\n",
            "load.yaml: is YAML of no known format; expected one of: blis, inference_perf_config, servegen",
        ),
        ("a: [\n", "load.yaml:2: is not YAML: "),
        (
            STAGES + "data: {type: shareGPT}\n",
            "load.yaml: data.type is 'shareGPT', whose lengths are not in the file",
        ),
        ("load: {type: constant, sweep: {type: linear}}\ndata: {}\n", "load.yaml: load.sweep is not read"),
        (
            "load: {stages: [{rate: 0, duration: 5}]}\ndata: {}\n",
            "load.yaml: load.stages.rate is 0; expected a number",
        ),
        (
            STAGES + "data: {type: random, input_distribution: {mean: 5, skew: 2}}\n",
            "load.yaml: data.input_distribution.skew is not read",
        ),
        (
            STAGES + "data: {type: random, input_distribution: {type: poisson, mean: 5}}\n",
            "load.yaml: data.input_distribution.type is 'poisson'; expected normal, lognormal, uniform, fixed",
        ),
        (
            STAGES + "data: {type: synthetic, multimodal: {image: {}}}\n",
            "load.yaml: data.multimodal is not read",
        ),
        (
            BLIS.replace("0.25", "0.5", 1),
            "load.yaml: the rate_fraction of all clients add up to 1.25; expected 1",
        ),
        ("aggregate_rate: 1\nclients: [1]\n", "load.yaml: is not as the format blis has it: "),
        (BLIS.replace("num_requests: 600", ""), "load.yaml: has neither num_requests nor horizon"),
        (
            BLIS.replace("id: long", "reasoning: {a: 1}"),
            "load.yaml: clients.1.reasoning is not read; leave it out",
        ),
    ],
)
def test_what_a_description_cannot_mean_is_refused(text: str, message: str, tmp_path: Path) -> None:
    assert problem(yaml(tmp_path, text)).startswith(message)


def test_every_drawn_format_has_a_row_on_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "workloads.md").read_text()
    for name in drawn_formats.names:
        assert f"\n| `{name}` |" in page, name
