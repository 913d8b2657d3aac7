"""``hermes-flow calibrate``: from tables and logs whose law is known to entries that simulate it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import polars as pl
import pytest
import yaml
from cli.command import in_this_process
from cost.step_tables import SHAPES, decode_us, prefill_us, write_shapes

import hermes_flow as hf
from hermes_flow.errors import CompileError, ConfigError, HermesFlowError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.tasks import verbs


def calibrate(folder: Path, path: Path, *overrides: str) -> str:
    """Run the verb in this process; entries go into ``folder``/mine."""
    config = hf.compose(["task=calibrate", f"task.path={path}", f"task.into={folder / 'mine'}", *overrides])
    run = folder / "run"
    run.mkdir(exist_ok=True)
    return verbs.parse(config.task, "task").run(config, run)


def printed_command(text: str) -> list[str]:
    """The words of the command that a calibration prints, as a shell takes them, without its name."""
    (line,) = (line for line in text.replace("\\\n", "").splitlines() if line.startswith("  hermes-flow "))
    return shlex.split(line)[1:]


def step_of(folder: Path | None, *overrides: str) -> StepCost:
    """The step of the LLM pool, with the entries that were written for ``folder``."""
    mine = None if folder is None else folder / "mine"
    program = hf.compile(
        hf.compose([*overrides, "workload=synthetic", "workload.requests=5"], config_dir=mine)
    )
    (pool,) = (pool for pool in program.pools if pool.name == "llm")
    return pool.client.cost  # type: ignore[union-attr]


def test_a_table_becomes_a_cost_that_says_what_it_says(tmp_path: Path) -> None:
    """The whole way: the printed command simulates with the entry."""
    table = write_shapes(tmp_path / "my_steps.csv", more="512,1,64,,9\n")
    done = in_this_process(
        tmp_path, "calibrate", "task.path=my_steps.csv", "task.into=mine", "task.name=my_steps"
    )
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith(
        "regression (piecewise) of llama3_8b on h100_sxm\nfrom 16 of 17 rows of my_steps.csv"
    )
    assert "my_steps.csv:18: prefill_ms is empty; expected a positive number" in done.out
    entry = yaml.safe_load((tmp_path / "mine/cost/my_steps.yaml").read_text())
    assert (entry["model"], entry["hardware"], list(entry["fits"])) == ("llama3_8b", "h100_sxm", [1])
    assert "Shapes held out: prefill" in entry["fits"][1]["source"]
    assert entry["fits"][1]["most_tokens"] == 256 * 32
    used = in_this_process(
        tmp_path, "compile", *printed_command(done.out), "workload=synthetic", "workload.requests=5"
    )
    assert (used.status, used.err) == (0, "")
    assert "regression: my_steps.csv: 16 rows of shapes, 1 left out, fitted as 29 steps" in " ".join(
        used.out.split()
    )
    report = json.loads((tmp_path / done.folder / "summary.json").read_text())["calibration"]
    assert (report["kind"], report["rows"], report["left_out"]) == ("regression", 17, 1)
    assert report["errors"]["1"]["held_out"]["decode"] < 0.01
    assert table.exists()


def test_the_entry_simulates_the_law_of_the_table(tmp_path: Path) -> None:
    calibrate(tmp_path, write_shapes(tmp_path / "shapes.csv"))
    cost = step_of(tmp_path, "cost=calibrated")
    assert cost.step_ps([(700, 0)], 0, 0) / 1e6 == pytest.approx(prefill_us(700, 1), rel=0.02)
    assert cost.step_ps([], 12, 12_000) / 1e6 == pytest.approx(decode_us(12, 12_000), rel=0.01)
    with pytest.raises(CompileError, match=r"cluster.pools.llm.model: qwen2_5_7b, but cost.model says"):
        step_of(tmp_path, "cost=calibrated", "model=qwen2_5_7b")


def test_the_error_held_out_is_that_of_shapes_not_seen(tmp_path: Path) -> None:
    """A prefill three times as slow as its neighbours can be fitted, but not foreseen."""
    odd = 384

    def prefill(prompt: float, batch: float) -> float:
        return (3.0 if prompt == odd else 1.0) * prefill_us(prompt, batch)

    shapes = [*SHAPES, (odd, 1, 64), (700, 1, 64), (3 * odd, 1, 64)]
    text = calibrate(
        tmp_path, write_shapes(tmp_path / "odd.csv", shapes, lambda p, b: min(prefill(p, b), 60_000 + p))
    )
    assert "(1 × 384 tokens)" in text
    errors = json.loads((tmp_path / "run/summary.json").read_text())["calibration"]["errors"]["1"]
    assert abs(errors["worst"]["prefill"]["error"]) > 0.4
    assert errors["held_out"]["prefill"] > errors["fit"]["prefill"]


CORRECTIONS = {
    "measured_on": "h100_sxm",
    "host_layer_us": 400,
    "token_work": 1.5,
    "prefill_layer_us": 80,
    "sequence_us": 100,
    "decode_attention": 1,
    "prefill_attention": 1,
}


def test_corrections_of_the_roofline_carry_to_another_model(tmp_path: Path) -> None:
    law = ("cost=hybrid", *(f"cost.{name}={value}" for name, value in CORRECTIONS.items()))
    true = step_of(None, *law)
    table = write_shapes(
        tmp_path / "shapes.csv",
        prefill=lambda prompt, batch: true.step_ps([(int(prompt), 0)] * int(batch), 0, 0) / 1e6,
        decode=lambda sequences, context: true.step_ps([], int(sequences), int(context)) / 1e6,
    )
    text = calibrate(tmp_path, table, "task.fit=hybrid", "task.name=my_h100")
    assert text.startswith("corrections of the roofline by llama3_8b on h100_sxm")
    entry = yaml.safe_load((tmp_path / "mine/cost/my_h100.yaml").read_text())
    assert entry["host_layer_us"] == pytest.approx(400, rel=0.03)
    assert entry["token_work"] == pytest.approx(1.5, rel=0.05)
    other = ("model=qwen3_14b",)
    found, expected = step_of(tmp_path, *other, "cost=my_h100"), step_of(None, *other, *law)
    for step in (([(900, 0)], 0, 0), ([], 20, 20_000)):
        assert found.step_ps(*step) == pytest.approx(expected.step_ps(*step), rel=0.04)


def test_the_engine_that_served_a_log_is_found_again(tmp_path: Path) -> None:
    served = ["pipeline=llm", "workload=synthetic", "workload.requests=600", "workload.rate_per_s=8"]
    true = {"step_us": 2000.0, "sequence_us": 60.0, "ingest_ms": 40.0}
    engine = [f"hardware.engine.{name}={value}" for name, value in true.items()]
    requests = hf.simulate(hf.compile(hf.compose([*served, *engine]))).requests
    columns = ("arrival_s", "input_tokens", "output_tokens", "ttft_s", "e2e_s")
    requests.select(columns).write_csv(tmp_path / "log.csv")
    text = calibrate(tmp_path, tmp_path / "log.csv", "pipeline=llm", "task.name=my_gpu")
    assert text.startswith("engine of llama3_8b on 1 × h100_sxm, from 600 requests of")
    entry = yaml.safe_load((tmp_path / "mine/hardware/my_gpu.yaml").read_text())
    assert entry["defaults"] == ["h100_sxm", "_self_"]
    assert entry["engine"]["ingest_ms"] == pytest.approx(40, rel=0.1)
    # A step and its sequences cost much the same together whatever their parts.
    at_ten = entry["engine"]["step_us"] + 10 * entry["engine"]["sequence_us"]
    assert at_ten == pytest.approx(2600, rel=0.1)
    config = hf.compose([*served, "hardware=my_gpu"], config_dir=tmp_path / "mine")
    again = hf.simulate(hf.compile(config)).requests
    for metric in ("ttft_s", "tpot_s", "e2e_s"):
        assert again[metric].mean() == pytest.approx(requests[metric].mean(), rel=0.02)
    errors = json.loads((tmp_path / "run/summary.json").read_text())["calibration"]["errors"]
    assert errors["tpot"]["held_out"] < 0.02 < 0.2 < errors["tpot"]["before"]


@pytest.mark.shared_data
def test_the_engine_of_a_real_server_meets_windows_that_were_held_out(
    shared_data: Path, tmp_path: Path
) -> None:
    served = pl.read_parquet(shared_data / "vllm_rtx" / "rtxpro6000_llama-3.1-8b_tp1.parquet")
    served.select(
        "arrival_us",
        "input_tokens",
        "output_tokens",
        ttft_us=pl.col("first_token_us") - pl.col("arrival_us"),
        e2e_us=pl.col("last_token_us") - pl.col("arrival_us"),
    ).write_csv(tmp_path / "log.csv")
    limits = ("cluster.pools.llm.max_num_seqs=128", "cluster.pools.llm.max_num_batched_tokens=2048")
    calibrate(tmp_path, tmp_path / "log.csv", "pipeline=llm", "hardware=rtx_pro_6000", *limits)
    errors = json.loads((tmp_path / "run/summary.json").read_text())["calibration"]["errors"]
    for metric, before, held_out in (("ttft", 0.09, 0.025), ("tpot", 0.04, 0.02), ("e2e", 0.04, 0.015)):
        assert errors[metric]["before"] > before
        assert errors[metric]["held_out"] < held_out


@pytest.fixture
def light_log(tmp_path: Path) -> Path:
    """Sixty requests, far apart, of an engine that takes 2 ms more a step."""
    work = [f"workload.{side}_tokens={{distribution: fixed, value: 8}}" for side in ("input", "output")]
    served = ["pipeline=llm", "workload=synthetic", "workload.requests=60", *work]
    requests = hf.simulate(hf.compile(hf.compose([*served, "hardware.engine.step_us=2000"]))).requests
    columns = ("arrival_s", "input_tokens", "output_tokens", "ttft_s", "e2e_s")
    requests.select(columns).write_csv(tmp_path / "log.csv")
    return tmp_path / "log.csv"


def test_the_command_of_an_engine_repeats_the_deployment_that_was_fitted(light_log: Path) -> None:
    folder = light_log.parent
    (folder / "base" / "hardware").mkdir(parents=True)
    base = "defaults:\n  - l40s\n  - _self_\n\nname: my_l40s\nmemory_gb: 40\n"
    (folder / "base" / "hardware" / "my_l40s.yaml").write_text(base)
    limits = ("cluster.pools.llm.max_num_seqs=24", "cluster.pools.llm.max_num_batched_tokens=1024")
    task = ("task.path=log.csv", "task.into=mine", "task.name=my_gpu")
    given = ("pipeline=llm", "hardware=my_l40s", *limits, "plugins=[]")
    done = in_this_process(folder, "--config-dir", "base", "calibrate", *task, *given)
    assert (done.status, done.err) == (0, "")
    command = printed_command(done.out)
    assert command[:2] == ["--config-dir", "mine"]
    assert command[2] == f"hydra.searchpath=[{(folder / 'base').resolve().as_uri()}]"
    assert command[3:] == ["hardware=my_gpu", "pipeline=llm", *limits, "plugins=[]", "model=llama3_8b"]
    used = in_this_process(folder, "compile", *command, "workload=synthetic", "workload.requests=5")
    assert (used.status, used.err) == (0, "")
    shown = " ".join(used.out.split())
    assert "1 × my_gpu" in shown
    assert "at most 24 sequences and 1,024 tokens" in shown


def test_a_table_of_another_model_is_told_to_be_of_the_configured_one(tmp_path: Path) -> None:
    lines = write_shapes(tmp_path / "plain.csv").read_text().splitlines()
    rows = "\n".join(
        [f"{lines[0]},model,hardware", *(f"{line},llama2-70b,NVIDIA H100" for line in lines[1:])]
    )
    (tmp_path / "named.csv").write_text(rows)
    where = ("+task.where.model=llama2-70b", "+task.where.hardware=NVIDIA H100")
    text = calibrate(tmp_path, tmp_path / "named.csv", *where, "task.form=affine")
    assert text.splitlines()[1] == (
        "as configured: model=llama3_8b hardware=h100_sxm; the rows say model llama2-70b"
    )
    own = calibrate(tmp_path, tmp_path / "named.csv", "model=llama2_70b", "task.form=affine", "task.name=own")
    assert "as configured" not in own


def test_left_out_lines_are_no_wider_than_a_terminal(tmp_path: Path) -> None:
    table = write_shapes(tmp_path / "shapes.csv", more="256,64,64,120,9.9\n")
    text = calibrate(tmp_path, table, "task.form=affine")
    # A path alone may be as wide as it is.
    assert [line for line in text.splitlines() if len(line) > 80 and len(line.split()) > 2] == []
    assert "64 × 256 tokens prefilled in 120 ms, though 32 × 256 took" in " ".join(text.split())


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    table = write_shapes(tmp_path / "shapes.csv")
    calibrate(tmp_path, table)
    before = (tmp_path / "mine/cost/calibrated.yaml").read_text()
    with pytest.raises(
        ConfigError, match=r"task.name: .*calibrated.yaml exists; expected another name, or task.ov"
    ):
        calibrate(tmp_path, table, "task.form=affine")
    assert (tmp_path / "mine/cost/calibrated.yaml").read_text() == before
    calibrate(tmp_path, table, "task.form=affine", "task.overwrite=true")
    assert (tmp_path / "mine/cost/calibrated.yaml").read_text() != before


def test_the_same_table_gives_the_same_entry(tmp_path: Path) -> None:
    table = write_shapes(tmp_path / "shapes.csv")
    for name in ("one", "two"):
        calibrate(tmp_path, table, f"task.name={name}")
    one, two = ((tmp_path / f"mine/cost/{name}.yaml").read_bytes() for name in ("one", "two"))
    assert one == two


LOG = "arrival_s,input_tokens,output_tokens,ttft_s,e2e_s\n" + "".join(f"{i},9,9,0.1,0.9\n" for i in range(30))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (
            "prompt,batch,prefill_ms\n1,1,1\n2,1,2\n3,1,3\n",
            [],
            "task.path: .* 3 distinct shapes on 1 device; expected 4",
        ),
        (
            "prompt,batch,prefill_ms,decode_ms\nabc,1,5,6\n100,1,5,6\n200,1,6,6\n",
            [],
            r"task.path: .* 2 distinct shapes on 1 device; .*; left out:\n  - .*table.csv:2: prompt is 'abc'; exp",
        ),
        (
            "prompt,batch,prefill_ms,prefill_s\n1,1,1,1\n",
            [],
            "task.path: .*table.csv has prefill_ms and prefill_s; expected one of them",
        ),
        (
            LOG.replace("ttft_s", "ttft_s,ttft_ms").replace("0.1", "0.1,100"),
            [],
            "table.csv:1: has ttft_s and ttft_ms; expected one of them",
        ),
        (LOG, ["task.limit=0"], "task.limit: 0 is out of range; expected an integer from 1"),
        (LOG, ["task.limit=-5"], "task.limit: -5 is out of range; expected an integer from 1"),
        (
            "prompt,batch,prefill_ms\n1,1,\n",
            [],
            "task.path: none of 1 rows of .* can be used:\n  - .*:2: prefill_ms is",
        ),
        ("when,what\n1,2\n", [], "task.path: .* is neither a table of shapes"),
        (LOG, ["task.limit=5"], "task.path: .* has 5 requests; expected 8 or more"),
        (
            LOG,
            ["task.fit=hybrid"],
            "task.fit: hybrid needs a table of shapes or of steps; .* is a log of requests",
        ),
        (
            "prompt,batch,prefill_ms\n1,1,1\n",
            ["task.fit=engine"],
            "task.fit: engine needs a log of requests; .* shapes",
        ),
        (LOG, ["task.name=h100_sxm"], r"task.name: 'h100_sxm' is built in \(hardware=h100_sxm\)"),
        (LOG, ["task.name=a/b"], "task.name: 'a/b' is not a valid file name"),
        (LOG.replace("\n3,9,9,0.1", "\n3,9,9,zero"), [], ":5: ttft_s"),
        (LOG, ["cost=affine", "cost.fixed_us=5"], "cost: task.fit=engine fits the engine of the roofline"),
        (LOG, ["cluster=disaggregated"], "task.pool: null, and the cluster has 2 LLM pools"),
        ("prompt,batch,prefill_ms\n1,1,1\n", ["+task.where.gpu=a"], "task.where.gpu: .* has no such col"),
    ],
)
def test_what_cannot_be_fitted_is_refused(
    tmp_path: Path, text: str, overrides: list[str], message: str
) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(HermesFlowError, match=message):
        calibrate(tmp_path, path, *overrides)


def test_a_file_in_the_place_of_the_folder_is_named_by_its_key(tmp_path: Path) -> None:
    table = write_shapes(tmp_path / "shapes.csv")
    for into in (table, table / "below"):
        with pytest.raises(ConfigError, match=r"^task.into: .*shapes.csv is a file; expected a folder"):
            calibrate(tmp_path, table, f"task.into={into}")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"task.path: .*nothing.csv: no such file"):
        calibrate(tmp_path, tmp_path / "nothing.csv")
