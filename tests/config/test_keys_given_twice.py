"""A key that a file has twice is an error with its line in every reader, or one of its values would be lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.documents import DocumentError, read_json, read_yaml
from hermes_flow.config.hugging_face import entry_of
from hermes_flow.cost.kernels.table import read_table
from hermes_flow.deployments import read_deployment
from hermes_flow.metrics.run_files import read_summary
from hermes_flow.validation.description import read_description
from hermes_flow.workload.records import open_table

ROW = '{"arrival_s": 0, "input_tokens": 5, "output_tokens": 2}\n'
VLLM = '{"input_lens": [3], "output_lens": [2], "ttfts": [0.1], "itls": [[0.1]], "input_lens": [4]}'


def said(error: pytest.ExceptionInfo[hf.HermesFlowError], folder: Path) -> str:
    return str(error.value).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ('{"a": 1, "a": 1}', 1, "a"),
        ('{"a": [{"b": 1},\n {"b": 1, "c": "\\"}{,",\n "b": 2}]}', 3, "b"),
        ('{"x": {"k": 1},\n"k": {"k": 2},\n"y": ["k", "k"], "\\u006b": 3}', 3, "k"),
    ],
)
def test_a_json_text_names_the_line_of_the_second(text: str, line: int, key: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_json(text)
    assert (caught.value.line, caught.value.problem) == (line, f"has the key {key!r} twice")


def test_a_yaml_text_names_the_line_of_the_second() -> None:
    with pytest.raises(DocumentError) as caught:
        read_yaml("a: 1\nb:\n  - c: 1\n    d: 2\n    c: 3\n")
    assert (caught.value.line, caught.value.problem) == (5, "has the key 'c' twice")
    assert read_yaml("base: &b {a: 1, b: 2}\nown:\n  <<: *b\n  a: 3\n")["own"] == {"a": 3, "b": 2}


@pytest.mark.parametrize("limit", [None, 3])
def test_a_trace_of_json_lines(limit: int | None, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        ROW + "\n" + '{"arrival_s": 1, "input_tokens": 5, "output_tokens": 2, "input_tokens": 6}\n'
    )
    keys = [
        "workload=trace",
        f"workload.path={path}",
        *([] if limit is None else [f"workload.limit={limit}"]),
    ]
    with pytest.raises(hf.TraceError) as caught:
        hf.compile(hf.compose(keys))
    assert said(caught, tmp_path) == "t.jsonl:3: has the key 'input_tokens' twice"


def test_a_name_that_is_also_a_value_or_stands_further_in_is_no_second_key(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(ROW.replace("}", ', "session": "output_tokens", "more": {"output_tokens": 9}}'))
    program = hf.compile(hf.compose(["workload=trace", f"workload.path={path}"]))
    assert program.requests is not None
    assert program.requests.output_tokens.tolist() == [2]


def test_the_log_of_a_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text(VLLM.replace(', "input_lens": [4]', ',\n "input_lens": [4]'))
    with pytest.raises(hf.TraceError) as caught:
        open_table(str(path))
    assert said(caught, tmp_path) == "log.json:2: has the key 'input_lens' twice"


def test_the_file_beside_a_log(tmp_path: Path) -> None:
    record = {"metadata": {"request_start_ns": 1}, "metrics": {"input_sequence_length": {"value": 3}}}
    record["metrics"]["output_sequence_length"] = {"value": 2}
    (tmp_path / "profile_export.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "profile_export_aiperf.json").write_text('{"loadgen": 1,\n"loadgen": 2}')
    with pytest.raises(hf.TraceError) as caught:
        open_table(str(tmp_path / "profile_export.jsonl"))
    assert said(caught, tmp_path) == "profile_export_aiperf.json:2: has the key 'loadgen' twice"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "generation_config.json"])
def test_the_files_of_a_model(name: str, tmp_path: Path) -> None:
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    shape |= {"vocab_size": 100, "num_key_value_heads": 1, "max_position_embeddings": 512}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **shape}))
    assert entry_of(tmp_path)["hidden_size"] == 64
    (tmp_path / "generation_config.json").write_text('{"top_p": "0.9"}')
    with pytest.raises(hf.ConfigError, match=r"generation_config.json: top_p: '0.9' is not a number"):
        entry_of(tmp_path)
    (tmp_path / "generation_config.json").unlink()
    (tmp_path / name).write_text('{"model_type": "llama",\n"hidden_size": 1,\n"hidden_size": 2}')
    with pytest.raises(hf.ConfigError) as caught:
        entry_of(tmp_path)
    assert said(caught, tmp_path) == f"{name}:3: has the key 'hidden_size' twice"


def test_a_description_of_a_load_of_a_deployment_and_of_a_measured_run(tmp_path: Path) -> None:
    path = tmp_path / "given.yaml"
    path.write_text("load: 1\nother: 2\nload: 3\n")
    expected = "given.yaml:3: has the key 'load' twice"
    for read in (
        lambda: hf.compile(hf.compose(["workload=trace", f"workload.path={path}"])),
        lambda: read_deployment("vllm", str(path)),
        lambda: read_description(path),
    ):
        with pytest.raises(hf.HermesFlowError) as caught:
            read()
        assert said(caught, tmp_path) == expected


def test_an_entry_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "slo").mkdir()
    (tmp_path / "slo" / "mine.yaml").write_text("name: mine\nttft_ms: {p99: 100}\nttft_ms: {p99: 200}\n")
    with pytest.raises(hf.HermesFlowError, match=r"mine.yaml:3: not valid YAML: found duplicate key ttft_ms"):
        hf.compose(["slo=mine"], config_dir=tmp_path)


def test_a_table_of_measurements_and_a_json_flag(tmp_path: Path) -> None:
    path = tmp_path / "gemm.csv"
    path.write_text("m,time_us,m\n1,2,3\n")
    with pytest.raises(hf.ConfigError, match=r"gemm.csv:1: has the column 'm' twice"):
        read_table(path, ["m"])
    with pytest.raises(hf.ConfigError, match="--speculative-config: has the key 'model' twice"):
        read_deployment("vllm", """vllm serve x --speculative-config '{"model": 1, "model": 2}'""")


def test_the_summary_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text('{"requests": {},\n"requests": {}}')
    with pytest.raises(hf.HermesFlowError, match=r"line 2: has the key 'requests' twice"):
        read_summary(tmp_path)
