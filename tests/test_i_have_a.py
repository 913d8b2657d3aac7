"""Every command of docs/i_have_a.md runs with a small file of its kind."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

import hermes_flow as hf
from hermes_flow.tasks import verbs

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT / "tests" / "workload" / "cases"
PAGE = (ROOT / "docs" / "i_have_a.md").read_text(encoding="utf-8")
COMMANDS = [
    *re.findall(r"^\|.*\| `hermes-flow ([^`]+)` \|$", PAGE, flags=re.MULTILINE),
    *re.findall(r"^hermes-flow (.+)$", PAGE, flags=re.MULTILINE),
]
COPIES = {
    "my_azure_mm.csv": "azure_mm.csv",
    "my_sessions.jsonl": "dynamo_mooncake_sessions.jsonl",
    "my_lengths.jsonl": "mooncake_no_timestamp.jsonl",
    "my_qwen.jsonl": "qwen_bailian_blksz_16.jsonl",
    "my_agents.jsonl": "llmservingsim_agentic.jsonl",
    "my_sharegpt.json": "sharegpt.json",
    "my_usage.csv": "openai_usage_names.csv",
    "my_vllm_bench.json": "vllm_bench.json",
    "my_logs/a/bench.json": "vllm_bench.json",
}
TABLES = {
    "my_azure.csv": "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 08:00:00.5+00:00,374,44\n",
    "my_burstgpt.csv": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log "
    "Type\n5,GPT-4,472,18,490,API log\n",
    "my_vidur.csv": "arrived_at,num_prefill_tokens,num_decode_tokens\n0.5,374,44\n",
    "my_splitwise.csv": "request_id,arrival_timestamp,prompt_size,token_size\n0,0.5,374,44\n",
    "my_gateway.csv": (
        "created_at,usage.in,usage.out,user\n2025-01-01T10:00:00Z,300,20,ann\n2025-01-01T10:00:01Z,9,9,bo\n"
    ),
    "my_sizes.csv": "p,g\n300,20\n30,2\n",
    "my_requests.csv": (
        "arrival_s,input_tokens,output_tokens,ttft_ms,e2e_ms\n0,512,64,61.2,1905\n1,512,64,61.2,1905\n"
    ),
    "my_llmservingsim.csv": "request id,input,output,arrival,latency,TTFT\n0,1472,3,4000000,300000000,100000000\n",
    "my_inference_perf.yaml": (
        "load: {type: constant, stages: [{rate: 2, duration: 3}]}\n"
        "data: {type: shared_prefix, shared_prefix: {num_groups: 2, num_prompts_per_group: 2, system_prompt_len: 64, "
        "question_len: 32, output_len: 4}}\n"
    ),
    "my_blis.yaml": (
        "aggregate_rate: 5\nnum_requests: 9\nclients:\n- rate_fraction: 1\n  arrival: {process: poisson}\n"
        "  input_distribution: {type: constant, params: {value: 90}}\n"
        "  output_distribution: {type: constant, params: {value: 9}}\n"
    ),
    "my_servegen/chunk-0-trace.csv": "0,0,0,,0,0\n600,0.5,1.0,Gamma,1.0,2.0\n1200,0,0,,0,0\n",
    "my_servegen/chunk-0-dataset.json": '{"0": {"input_tokens": "{90: 1.0}", "output_tokens": "{9: 1.0}"}}',
}
TIMES = {"start_time": 50.0, "end_time": 52.0, "first_token_time": 50.5}
REPORT = {
    "args": {"strategy": {"type_": "poisson"}},
    "requests": {"successful": [{"prompt_tokens": 9, "output_tokens": 5, **TIMES}]},
}
RUN = {
    "backend": "sglang",
    "request_rate": 2,
    "input_lens": [9],
    "output_lens": [2],
    "ttfts": [0.1],
    "itls": [[0.01]],
}
TEXT = 'data: {"choices": [{"delta": {"content": "a"}}]}\n\n'
USAGE = 'data: {"usage": {"prompt_tokens": 40, "completion_tokens": 2}}'
RECORDS: dict[str, list[Any]] = {
    "my_mooncake.jsonl": [{"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [0, 1]}],
    "my_replay.jsonl": [{"timestamp": 0.5, "input_length": 600, "output_length": 5}],
    "my_guidellm.json": [{"benchmarks": [REPORT]}],
    "my_sglang.jsonl": [RUN, RUN],
    "my_aiperf.jsonl": [
        {
            "metadata": {"request_start_ns": 5, "request_end_ns": 10**9},
            "metrics": {
                "input_sequence_length": {"value": 550, "unit": "tokens"},
                "output_sequence_length": {"value": 9, "unit": "tokens"},
                "time_to_first_token": {"value": 250, "unit": "ms"},
                "request_latency": {"value": 650, "unit": "ms"},
            },
        }
    ],
    "my_genai_perf.json": [
        {
            "experiments": [
                {
                    "experiment": {"mode": "request_rate", "value": 1},
                    "requests": [
                        {
                            "timestamp": 5,
                            "response_timestamps": [10**8, 10**9],
                            "response_outputs": [{"response": TEXT}, {"response": TEXT + USAGE}],
                        }
                    ],
                }
            ]
        }
    ],
    "my_per_request.json": [
        [
            {
                "start_time": 1.0,
                "end_time": 2.0,
                "info": {"input_tokens": 50, "output_tokens": 3, "output_token_times": [1.5, 1.7, 2.0]},
                "error": None,
            }
        ]
    ],
}


def make(name: str, folder: Path) -> None:
    """Make the file or the folder ``name`` below ``folder``."""
    for known in (*COPIES, *TABLES, *RECORDS):
        if known != name and not known.startswith(f"{name}/"):
            continue
        path = folder / known
        path.parent.mkdir(parents=True, exist_ok=True)
        if known in COPIES:
            shutil.copy(CASES / COPIES[known], path)
        else:
            lines = [json.dumps(record) for record in RECORDS.get(known, [])]
            path.write_text(TABLES.get(known) or "\n".join(lines))
    if name.endswith("steps.csv"):
        rows = [
            f"{64 * (step % 3)},{step % 7 + 1},{300 * (step % 7 + 1)},{4000 + 31 * step}"
            for step in range(60)
        ]
        (folder / name).write_text("\n".join(["prefill_tokens,decodes,decode_context,time_us", *rows]))


def test_the_page_has_a_command_for_each_kind_of_file() -> None:
    assert len(COMMANDS) >= 30


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_page_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)  # no command of another test is under way
    for name in re.findall(r"(?:path=|runs=|\[|,)(my_[\w.]+)", command):
        make(name, tmp_path)
        assert (tmp_path / name).exists(), name
    words = shlex.split(command)
    if words[0] in verbs.names:
        config = hf.compose([f"task={words[0]}", *words[1:]])
        (tmp_path / "run").mkdir()
        assert verbs.parse(config.task, "task").run(config, tmp_path / "run")
    else:
        result = hf.simulate(hf.compile(hf.compose([*words, "pipeline=llm"])))
        assert result.summary["requests"]["completed"] >= 1
