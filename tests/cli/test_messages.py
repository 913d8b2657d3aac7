"""What a command says when something small is wrong: what was expected, and a way that works."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from cli.command import in_this_process

OWN = {
    "own/hardware/mine.yaml": "name: mine\n",
    "own/cost/mine.yaml": "kind: affine\nfixed_us: ???\nper_token_us: ???\n",
    "own/slo/mine.yaml": "name: mine\n",
    "own/workload/mine.yaml": "defaults: [synthetic, _self_]\nmodels: {'': 1.0}\n",
}


def said(cwd: Path, command: str) -> str:
    """Return in one line what the command says; it fails, and writes nothing."""
    for name, text in OWN.items():
        (cwd / name).parent.mkdir(parents=True, exist_ok=True)
        (cwd / name).write_text(text)
    done = in_this_process(cwd, *shlex.split(command))
    assert done.status == 1
    assert {path.name for path in cwd.iterdir()} == {"own"}
    return " ".join(done.err.split()).removeprefix("hermes-flow: ")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "--config-dir own hardware=mine",
            "hardware.kind: missing; expected one of gpu, asic, cpu; also missing: memory_gb (a number), "
            "bandwidth_gb_s (a number) (own/hardware/mine.yaml)",
        ),
        (
            "--config-dir own cost=mine",
            "cost.fixed_us: missing; set it to a number, as in cost.fixed_us=…; also missing: per_token_us (a "
            "number) (own/cost/mine.yaml:2)",
        ),
        ("'slo.ttft_ms=[1]'", "slo.ttft_ms: a list is not allowed here; expected a mapping, as in {key: value}"),
        (
            "--config-dir own hardware=mine hardware.kind=gpu",
            "hardware.kind: the file leaves it out; add it with +hardware.kind=…",
        ),
        ("'plugins={a: 1}'", "plugins: a mapping is not allowed here; expected a list, as in [a,b]"),
        (
            "workload.requests=\"'16'\"",
            "workload.requests: '16' is text; expected an integer, so leave out the quotes",
        ),
        (
            "output.steps=\"'true'\"",
            "output.steps: 'true' is text; expected true or false, so leave out the quotes",
        ),
        ("workload.requests=many", "workload.requests: 'many' is not an integer"),
        (
            "slo=./own/slo/mine.yaml",
            "slo: there is no './own/slo/mine.yaml'; a group takes the name of an entry, as in slo=mine, and "
            "--config-dir=DIR finds the file DIR/slo/mine.yaml",
        ),
        (
            "-m hydra/launcher=submitit_slurm seed=1,2",
            "hydra/launcher: 'submitit_slurm' is not there; python -m pip install 'hermes-flow[submitit]' "
            "installs it",
        ),
        (
            "hardware=rtx4090 cluster.pools.llm.tensor_parallel=2",
            "cluster.pools.llm.hardware.efficiency.all_reduce.2: missing; rtx4090 has no measured all-reduce of 2 "
            "devices (it has: none), and the roofline invents none; give the figures of this key, or choose other "
            "hardware or parallelism",
        ),
    ],
)  # fmt: skip
def test_a_message_says_what_was_expected(command: str, message: str, tmp_path: Path) -> None:
    assert said(tmp_path, command) == message


@pytest.mark.parametrize(
    "command",
    [
        "--config-dir own cost=mine cost.fixed_us=100 cost.per_token_us=1",
        "--config-dir own hardware=mine +hardware.kind=gpu +hardware.memory_gb=80 +hardware.bandwidth_gb_s=3000 "
        "cost=affine cost.fixed_us=100",
        "--config-dir own slo=mine",
        "slo=none slo.ttft_ms.p99=2000",
        "hardware=rtx4090 cluster.pools.llm.tensor_parallel=2 cost=affine cost.fixed_us=100",
    ],
)
def test_a_hint_works_when_it_is_followed(command: str, tmp_path: Path) -> None:
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    done = in_this_process(tmp_path, "compile", *shlex.split(command), "workload.requests=3")
    print(done.err)
    assert (done.status, done.err) == (0, "")


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("'workload.name=\"\"'", "workload.name: empty; expected a name"),
        ("'model.name=\" \"'", "model.name: empty; expected a name"),
        (
            "'cluster.name=\"a\x01b\"'",
            "cluster.name: 'a\\x01b' has a control character; expected text that can be printed",
        ),
        (
            "'workload.name=\"a\nb\"'",
            "workload.name: 'a\\nb' has a control character; expected text that can be printed",
        ),
        (
            "--config-dir own workload=mine",
            "workload.models: one of its names is empty; expected a name for each entry (own/workload/mine.yaml:2)",
        ),
        (
            "cluster.pools.llm.block_size=1000000",
            "cluster.pools.llm.block_size: a block of 1,000,000 tokens takes 131.1 GB, and the memory has room "
            "for the KV of 449,146 tokens; expected a smaller block",
        ),
        (
            "cluster.routing=???",
            "cluster.routing: missing; set it to a mapping or text, as in cluster.routing=…",
        ),
    ],
)
def test_odd_values_are_refused_where_they_are(command: str, message: str, tmp_path: Path) -> None:
    assert said(tmp_path, command) == message
