from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.singleton import Singleton
from hydra.core.utils import JobRuntime
from hydra.version import VersionBase
from tries import some_of

from hermes_flow.config.compose import compose
from hermes_flow.config.folders import config_folder
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError, HermesFlowError
from hermes_flow.pools.llm.schema import LLMPool


def refusal(*overrides: str, config_dir: str | Path | None = None) -> str:
    with pytest.raises(HermesFlowError) as caught:
        compose(overrides, config_dir)
    return str(caught.value)


def llm(config: Config) -> LLMPool:
    pool = config.cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return pool


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


SMALL_MODEL = """
name: small
kind: decoder
layers: 2
hidden_size: 256
heads: 4
kv_heads: 2
head_dim: 64
intermediate_size: 512
vocab_size: 1000
max_context: 4096
parameters_b: 0.002
"""


# What composes


def test_the_default_is_a_chat_on_one_h100() -> None:
    config = compose()
    assert (config.model.name, config.hardware.name) == ("llama3_8b", "h100_sxm")
    assert (config.pipeline.name, config.cluster.name, config.slo.name) == ("chat", "replicas", "chat")
    assert llm(config).model == config.model
    assert llm(config).hardware == config.hardware


def test_overrides_reach_every_place_that_uses_the_value() -> None:
    config = compose(["hardware=l40s", "hardware.bandwidth_gb_s=900", "seed=7"])
    assert llm(config).hardware.bandwidth_gb_s == 900.0
    assert config.workload.seed == config.seed == 7


def test_a_pool_may_have_hardware_of_its_own() -> None:
    config = compose(["hardware@cluster.pools.host.hardware=grace_cpu"])
    assert config.cluster.pools["host"].hardware.cores == 72
    assert llm(config).hardware.name == "h100_sxm"


def test_one_figure_of_a_pools_hardware_may_differ() -> None:
    config = compose(["cluster.pools.host.hardware.cores=3"])
    assert config.cluster.pools["host"].hardware.cores == 3


def test_every_built_in_entry_composes() -> None:
    for group in ("model", "hardware", "pipeline", "cluster", "workload", "cost", "slo", "task"):
        files = sorted((config_folder() / group).glob("*.yaml"))
        if group in ("model", "hardware"):  # that all of these fit the schema is tested with the catalog
            files = [path for path in files if "defaults:" in path.read_text(encoding="utf-8")] + files[:2]
        entries = [path.stem for path in some_of(files, 2)]
        assert entries, group
        for entry in entries:
            needed = {
                "trace": ["workload.path=x.csv"],
                "affine": ["cost.fixed_us=1"],
                "kernels": ["cost.path=x"],
            }
            compose([f"{group}={entry}", *needed.get(entry, [])])


def test_a_variant_given_as_a_mapping_replaces_the_old_one() -> None:
    points = "{distribution: quantiles, points: {0: 5, 1: 6}}"
    assert compose([f"workload.input_tokens={points}"]).workload.input_tokens == {  # type: ignore[union-attr]
        "distribution": "quantiles",
        "points": {0: 5, 1: 6},
    }


def test_later_overrides_of_such_a_variant_count() -> None:
    gamma = "workload.arrivals={process: gamma, cv: 2}"
    assert compose([gamma, "workload.arrivals.cv=3"]).workload.arrivals == {  # type: ignore[union-attr]
        "process": "gamma",
        "cv": 3,
    }
    added = compose([gamma, "+workload.arrivals.peak=4"])
    assert added.workload.arrivals == {"process": "gamma", "cv": 2, "peak": 4}  # type: ignore[union-attr]


# What is refused


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+bogus=1"], "bogus: unknown key; expected one of: cluster, cost, engine, hardware, model, "),
        (["+models=llama3_8b"], "models: unknown key; did you mean 'model'?"),
        (["+cluster.pools.llm.cont=8"], "cluster.pools.llm.cont: unknown key; did you mean 'count'?"),
        (
            ["++cluster.pools.llm.hardware.efficiency.prefill_attention.computee=1"],
            "cluster.pools.llm.hardware.efficiency.prefill_attention.computee: unknown key; did you mean "
            "'compute'?",
        ),
        (["cluster.pools.llm.cont=8"], "cluster.pools.llm.cont: unknown key; did you mean 'count'?"),
        (["cluster.pools.lm.count=8"], "cluster.pools.lm: unknown key; did you mean 'llm'?"),
        (["clustr=x"], "clustr: unknown key; did you mean 'cluster'?"),
        (
            ["hardware.efficiency.all_reduce.16.alpha_us=1"],
            "hardware.efficiency.all_reduce.16: unknown key; expected one of: 2, 4, 8",
        ),
        (
            ["hardware.efficiency.all_reduce.4.alpha_us=1"],
            "hardware.efficiency.all_reduce.4: a number names it; expected a mapping for "
            "hardware.efficiency.all_reduce, as in hardware.efficiency.all_reduce={4: …}",
        ),
        (["llm.count=2"], "llm: unknown key; did you mean 'cluster.pools.llm.count'?"),
        (["pools.llm.count=2"], "pools: unknown key; did you mean 'cluster.pools.llm.count'?"),
        (["embed.wait_ms=2"], "embed: unknown key; expected one of: cluster, cost, "),  # not seed
        (
            ["stages.embed.wait_ms=2"],
            "stages: unknown key; did you mean 'pipeline.stages.embed.wait_ms'?",
        ),  # not task
        (["model/foo=x"], "model/foo: there is no group 'model/foo'; did you mean 'model'?"),
        (
            ["workload.requests.x=3"],
            "workload.requests.x: unknown key; workload.requests is not a mapping; "
            "expected one, as in workload.requests={…, x: …}",
        ),
        (["~pipeline.stage"], "pipeline.stage: cannot be deleted: there is no such key"),
        (["~slo=none"], "slo: cannot be deleted: none is not chosen"),
        (["~seed=5"], "seed: cannot be deleted: it is 0, not 5"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(overrides: list[str], message: str) -> None:
    found = refusal(*overrides)
    assert found.startswith(message)
    assert found == message or message.endswith(", ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.requests=ten"], "workload.requests: 'ten' is not an integer"),
        (["workload.requests=null"], "workload.requests: null is not allowed; expected an integer"),
        (["hardware.memory_gb=big"], "hardware.memory_gb: 'big' is not a number"),
        (["hardware.bandwidth_gb_s=null"], "hardware.bandwidth_gb_s: null is not allowed; expected a number"),
        (["output.steps=maybe"], "output.steps: 'maybe' is not true or false"),
        (["model.kind=decodr"], "model.kind: 'decodr' is not valid; did you mean 'decoder'?"),
        (
            ["model.precision.weights=fp9"],
            "model.precision.weights: 'fp9' is not valid; expected one of: bf16, fp8, int4, int8, mxfp4, nvfp4",
        ),
        (
            ["cluster.pools.llm.lookahead=2"],
            "cluster.pools.llm.lookahead: 2 is not valid; expected one of: 0, 1",
        ),
        (
            ["cluster.pools.host.kind=sequntial"],
            "cluster.pools.host.kind: unknown kind of pool 'sequntial'; did you mean 'sequential'?",
        ),
        (
            ["cluster.pools.llm=null"],
            "cluster.pools.llm: null is not a mapping; cluster.pools.llm.count is the number of its clients",
        ),
        (
            ["cluster.pools=3"],
            "cluster.pools: 3 is not a mapping; expected entries under names, as in {a: …}",
        ),
        (
            ["pipeline.stages.decode.branches=4"],
            "pipeline.stages.decode.branches: unknown key; expected one of: after, kind; a key that the file leaves "
            "out is added with +pipeline.stages.decode.branches=…",
        ),
        (["~cluster"], "cluster: missing; expected a mapping"),
        (["~model.layers"], "model.layers: missing; expected an integer"),
        (["workload=trace"], "workload.path: missing; set it to text, as in workload.path=…"),
        (
            ["workload=trace", "seed=${workload.path}"],
            "workload.path: missing; set it, as in workload.path=…",
        ),
        (["seed=-1"], "seed: -1 is out of range; expected an integer from 0 to 9,223,372,036,854,775,807"),
        (["hydra.job.chdir=x"], "hydra.job.chdir: value 'x' is not a valid bool (type str)"),
    ],
)
def test_a_wrong_value_is_refused_with_key_and_value(overrides: list[str], message: str) -> None:
    assert refusal(*overrides) == message


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=lama3_8b"], "model: there is no 'lama3_8b'; did you mean 'llama3_8b'?"),
        (["hardware=h100"], "hardware: there is no 'h100'; did you mean 'h100_sxm'?"),
        (["task=x"], "task: there is no 'x'; expected one of: calibrate, "),
        (["experiment=no/such"], "experiment: there is no 'no/such'; a group takes the name of an entry, "),
        (
            ["hardware@cluster.pools.host.hardware=grace"],
            "hardware: there is no 'grace'; did you mean 'grace_cpu'?",
        ),
        (
            ["hardware@cluster.pools.hos.hardware=l40s"],
            "hardware@cluster.pools.hos.hardware: nothing is chosen there; did you mean "
            "'hardware@cluster.pools.host.hardware'?",
        ),
        (
            ["hardwar@cluster.pools.host.hardware=l40s"],
            "hardwar@cluster.pools.host.hardware: there is no group 'hardwar'; did you mean 'hardware'?",
        ),
        (["+model=llama3_8b"], "model: is chosen twice; leave out the +"),
        (
            ["hardware=null"],
            "hardware: null is not the name of an entry; expected one, as in hardware=a100_sxm",
        ),
        (["engine=8"], "engine: 8 is not the name of an entry; expected one, as in engine=sglang"),
        (["engine=true"], "engine: true is not the name of an entry; expected one, as in engine=sglang"),
        (["model=llama3_70"], "model: there is no 'llama3_70'; did you mean 'llama3_70b'?"),
    ],
)
def test_an_unknown_entry_or_group_is_refused_with_the_nearest(overrides: list[str], message: str) -> None:
    found = refusal(*overrides)
    assert found.startswith(message)
    assert found == message or message.endswith(", ")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["cost.fixed_us=3"], "cost.fixed_us: unknown key; it is a key of cost=affine"),
        (["workload.path=x.csv"], "workload.path: unknown key; it is a key of workload=trace"),
        (
            ["workload=trace", "workload.path=x.csv", "workload.requests=5"],
            "workload.requests: unknown key; it is a key of workload=azure_code, workload=azure_conv, ",
        ),
        (
            ["workload=trace", "workload.path=x.csv", "+workload.requests=5"],
            "workload.requests: unknown key; expected one of: arrivals, ",
        ),
    ],
)
def test_a_key_of_another_variant_is_refused(overrides: list[str], message: str) -> None:
    found = refusal(*overrides)
    assert found.startswith(message)
    assert found == message or message.endswith(", ")


RULE = "expected key=value, with brackets closed and texts of special characters in quotes"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload.requests=[1"], f"workload.requests=[1: not a valid override near '[1'; {RULE}"),
        (["workload.arrivals={process: gamma"], f"not a valid override near '{{process: gamma'; {RULE}"),
        (["seed"], f"seed: not a valid override; {RULE}"),
        (["seed='x"], f"seed='x: not a valid override near \"'x\"; {RULE}"),
        (["workload..requests=5"], f"workload..requests=5: not a valid override near '.'; {RULE}"),
        (
            ["seed=foo(3)"],
            "seed=foo(3): not a valid override: there is no function 'foo'; put a text with brackets in quotes",
        ),
        (["=5"], "an override has no key; expected key=value"),
        (["+seed=1"], "seed: is there already; leave out the +"),
        (["seed=1,2"], "seed: 1,2 are several values; add -m to sweep over them"),
        (
            ["workload.requests=1,2"],
            "workload.requests: 1,2 are several values; add -m to sweep over them, or write [1,2] for a list",
        ),
        (["seed=range(3)"], "seed: range(3) is a sweep; add -m to run it"),
        (["model.name=${oops}"], "model.name: interpolation key 'oops' not found"),
        (["seed=${seed}"], "seed: recursive interpolation detected"),
        (["seed=${oops:1}"], "seed: unsupported interpolation type oops"),
    ],
)
def test_a_broken_override_is_refused(overrides: list[str], message: str) -> None:
    assert refusal(*overrides).endswith(message)


# Entries and files of the user's own


def test_a_folder_of_the_user_adds_entries_to_the_groups(tmp_path: Path) -> None:
    write(tmp_path, "model/small.yaml", SMALL_MODEL)
    write(tmp_path, "pipeline/bare.yaml", "name: bare\nstages:\n  prefill: {kind: prefill}\n")
    config = compose(["model=small", "pipeline=bare"], config_dir=tmp_path)
    assert llm(config).model.hidden_size == 256
    assert list(config.pipeline.stages) == ["prefill"]


def test_such_an_entry_may_build_on_a_built_in_one(tmp_path: Path) -> None:
    write(tmp_path, "model/long.yaml", "defaults: [llama3_8b, _self_]\nname: long\nmax_context: 1000000\n")
    config = compose(["model=long"], config_dir=tmp_path)
    assert (config.model.name, config.model.layers, config.model.max_context) == ("long", 32, 1_000_000)


def test_an_experiment_of_the_user_sets_keys_of_every_group(tmp_path: Path) -> None:
    text = "# @package _global_\ndefaults:\n  - override /model: mistral_7b\nworkload:\n  requests: 3\n"
    write(tmp_path, "experiment/mine.yaml", text)
    config = compose(["experiment=mine"], config_dir=tmp_path)
    assert (config.model.name, config.workload.requests) == ("mistral_7b", 3)  # type: ignore[union-attr]


def test_a_search_path_works_like_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "model/small.yaml", SMALL_MODEL)
    assert compose(["model=small", f"hydra.searchpath=[file://{tmp_path}]"]).model.name == "small"


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    assert refusal(config_dir="nowhere") == "config_dir: there is no folder nowhere"
    assert refusal("hydra.searchpath=[nowhere]") == "hydra.searchpath: there is no folder nowhere"
    assert refusal("hydra.searchpath=3") == "hydra.searchpath must be a list of strings. Got: 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL_MODEL.replace("layers: 2", "layers: many"), "model.layers: 'many' is not an integer ({}:4)"),
        (SMALL_MODEL + "layrs: 2\n", "model.layrs: unknown key; did you mean 'layers'? ({}:13)"),
        (SMALL_MODEL.replace("layers: 2\n", ""), "model.layers: missing; expected an integer ({})"),
        (
            SMALL_MODEL.replace("layers: 2", "layers: ???"),
            "model.layers: missing; set it to an integer, as in ",
        ),
        (
            SMALL_MODEL + "precision:\n  weights: bf15\n",
            "model.precision.weights: 'bf15' is not valid; expected one of: bf16, fp8, int4, int8, mxfp4, nvfp4 "
            "({}:14)",
        ),
        ("name: x\nlayers: [1\n", "{}:3: not valid YAML: expected ',' or ']', but got '<stream end>'"),
        ("name: x\nname: y\n", "{}:2: not valid YAML: found duplicate key name"),
        ("\tname: x\n", "{}:1: not valid YAML: found character '\\t' that cannot start any token"),
        ("name: ${oops\n", "'${{oops' is not a valid interpolation; expected ${{key}}"),
        ("name: ${oops}\n", "model.name: interpolation key 'oops' not found"),
        ("defaults: [basee]\n", "model/mine.yaml: its defaults name 'model/basee', which does not exist"),
        ("defaults: [/modl: x]\n", "model/mine.yaml: its defaults name 'modl/x', which does not exist"),
        ("- 1\n- 2\n", "model: [1, 2] is not a mapping; expected the keys name, kind, "),
        (b"name: \xff\n", "a config file is not UTF-8 text"),
        (
            "{}",
            "model.name: missing; expected text; also missing: kind (one of decoder, encoder), layers (an integer), ",
        ),
    ],
)
def test_a_mistake_in_a_users_file_is_named_with_file_and_line(
    text: str | bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "own/model/mine.yaml", text)
    assert refusal("model=mine", config_dir="own").startswith(message.format("own/model/mine.yaml"))


@pytest.mark.parametrize(
    ("group", "text", "message"),
    [
        ("pool@cluster.pools.llm", "defaults:\n  - /hardware@hardware: inf\n", "hardware: there is no 'inf'"),
        (
            "workload",
            "defaults:\n  - azure_conv\n  - override /workload@workloadx: synthetic\n",
            "workload@workload.workloadx: nothing is chosen there",
        ),
    ],
)
def test_what_an_entry_of_ones_own_names_wrongly_is_told_with_its_file(
    group: str, text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = f"own/{group.partition('@')[0]}/mine.yaml"
    write(tmp_path, path, text)
    found = refusal(f"{group}=mine", config_dir="own")
    assert found.startswith(message)
    assert found.endswith(f" (in {path}, or what it names)")


def test_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    write(tmp_path, "model/small.yaml", SMALL_MODEL)
    assert "small.yaml" not in refusal("model=small", "hardware=nowhere", config_dir=tmp_path)
    found = refusal("model=small", "model.layers=x", config_dir=tmp_path)
    assert found == "model.layers: 'x' is not an integer"


def test_a_mistake_in_an_experiment_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, "experiment/mine.yaml", "# @package _global_\nworkload:\n  requests: many\n")
    found = refusal("experiment=mine", config_dir=tmp_path)
    assert found == f"workload.requests: 'many' is not an integer ({path}:3)"


def test_a_users_entry_with_the_name_of_a_built_in_one_is_refused_not_ignored(tmp_path: Path) -> None:
    path = write(tmp_path, "slo/chat.yaml", "name: chat\nttft_ms: {p50: 1.0}\n")
    assert refusal(config_dir=tmp_path) == f"slo: 'chat' is built in; give {path} another name"
    assert compose(["slo=none"], config_dir=tmp_path).slo.name == "none"


def test_the_built_in_folder_itself_is_no_folder_of_others() -> None:
    assert compose(config_dir=config_folder()) == compose()


# What is left behind


@pytest.fixture
def hydra_app() -> Iterator[None]:
    """Another Hydra application, in the middle of its own work."""
    kinds = (GlobalHydra, VersionBase, JobRuntime, HydraConfig)
    before = {kind: Singleton._instances.pop(kind, None) for kind in kinds}
    with initialize_config_dir(version_base="1.2", config_dir=str(config_folder()), job_name="theirs"):
        HydraConfig.instance().set_config(hydra_compose("config", return_hydra_config=True))
        yield
    for kind, instance in before.items():
        Singleton._instances.pop(kind, None)
        if instance is not None:
            Singleton._instances[kind] = instance


@pytest.mark.filterwarnings("ignore:version_base")
def test_composing_leaves_another_hydra_application_as_it_was(hydra_app: None) -> None:
    def state() -> tuple[Any, ...]:
        return (
            GlobalHydra.instance().hydra,
            str(VersionBase.instance().getbase()),
            JobRuntime.instance().get("name"),
            HydraConfig.get().job.name,
        )

    before = state()
    assert before[1:3] == ("1.2", "theirs")
    compose(["seed=1"])
    with pytest.raises(ConfigError):
        compose(["sed=1"])
    assert state() == before
    assert hydra_compose("config", overrides=["seed=4"]).seed == 4


def test_composing_first_leaves_no_hydra_behind() -> None:
    kinds = (GlobalHydra, VersionBase, JobRuntime, HydraConfig)

    def state() -> list[Any]:
        return [Singleton._instances.get(kind) for kind in kinds] + list(warnings.filters)

    before = state()
    compose()
    assert state() == before
    assert not GlobalHydra.instance().is_initialized()


def test_composing_twice_gives_equal_configs() -> None:
    assert compose(["seed=3"]) == compose(["seed=3"])
    assert compose(["seed=3"]) != compose(["seed=4"])


def test_a_reference_to_nothing_where_files_are_merged_shows_the_reference(tmp_path: Path) -> None:
    write(tmp_path, "own/cluster/mine.yaml", "defaults: [replicas, _self_]\npools: ${nothing}\n")
    with pytest.raises(HermesFlowError) as caught:
        compose(["cluster=mine"], tmp_path / "own")
    assert str(caught.value).startswith("${nothing} in a config file refers to a key that is not there")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("engine=sglang", "'sglang' is a name; expected engine@cluster.pools.llm.engine=sglang"),
        ("model=llama3_70b", "'llama3_70b' is a name; expected model@cluster.pools.llm.model=llama3_70b"),
        ("speculative.draft=llama3_8b", "expected +model@cluster.pools.llm.speculative.draft=llama3_8b"),
    ],
)
def test_a_name_in_the_place_of_an_entry_is_answered_with_the_override_that_chooses_it(
    given: str, expected: str
) -> None:
    assert refusal(f"cluster.pools.llm.{given}").endswith(expected)
    compose([expected.rpartition("expected ")[2]])
