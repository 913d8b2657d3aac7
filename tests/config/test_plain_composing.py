"""Plain files are composed to what Hydra composes of its own objects, and a command reads each of them once."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.base import Node
from omegaconf.errors import OmegaConfBaseException

from hermes_flow.config import loading, plain_files
from hermes_flow.config.compose import composing
from hermes_flow.config.folders import config_folder
from hermes_flow.config.quick_hydra import clone, to_plain

# Every group is among them, with pools that replace others, links between keys, and keys that replace mappings.
OVERRIDES = [
    [],
    ["pipeline=rag", "cluster=hgx", "hardware=l40s", "cluster.pools.llm.count=3"],
    ["pipeline=rag_kv_reuse", "cluster=hybrid"],
    ["cluster=kv_tiers", "pipeline=kv_reuse", "cluster.pools.llm.hardware.bandwidth_gb_s=900"],
    ["cluster=two_models", "hardware@cluster.pools.large.hardware=h200_sxm"],
    ["pipeline=mixed", "slo.ttft_ms={p90: 5}", "workload=sessions"],
    ["cost=hybrid", "engine=sglang", "prices=none", "network=hgx", "task=capacity"],
    ["experiment=strategy_p1d3"],
    ["workload=trace", "workload.path=x.csv", "model={name: mine}"],
    ["cluster.pools.llm.hardware=null"],
    ["~slo", "+more={a: [1, {b: ???}]}"],
]
MISTAKES = [
    ["pipeline=no_such"],
    ["bogus=1"],
    ["cluster.pools.llm={"],
    ["hardware=h100_sxm,l40s"],
    ["+slo=rag"],
]


@pytest.fixture
def compose() -> Callable[..., DictConfig]:
    def composed(overrides: list[str], *modes: RunMode) -> DictConfig:
        GlobalHydra.instance().clear()
        folder = str(config_folder())
        with (
            composing(),
            initialize_config_dir(version_base="1.3", config_dir=folder, job_name="hermes-flow"),
        ):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            for mode in modes:
                hydra.compose_config("config", overrides, run_mode=mode, validate_sweep_overrides=False)
            return hydra.compose_config("config", overrides, run_mode=RunMode.RUN)

    return composed


@pytest.fixture
def as_hydra_does(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def refuse(*arguments: object) -> None:
        raise plain_files.NotPlain

    return lambda: monkeypatch.setattr(loading.Loader, "_composed_plainly", refuse)


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_plain_files_compose_to_what_hydra_composes(
    overrides: list[str], compose: Callable[..., DictConfig], as_hydra_does: Callable[[], None]
) -> None:
    ours = compose(overrides)
    as_hydra_does()
    theirs = compose(overrides)
    assert OmegaConf.to_yaml(ours) == OmegaConf.to_yaml(theirs)
    assert described(ours) == described(theirs)


def test_a_loader_composes_what_a_new_one_does_whatever_it_composed_before(
    compose: Callable[..., DictConfig],
) -> None:
    settings = [*OVERRIDES[:4], ["hydra/job_logging=disabled"], ["task=validate"], ["task=plan"], []]
    alone = [compose(overrides) for overrides in settings]
    GlobalHydra.instance().clear()
    folder = str(config_folder())
    with composing(), initialize_config_dir(version_base="1.3", config_dir=folder, job_name="hermes-flow"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        for overrides, expected in zip(settings, alone, strict=True):
            composed = hydra.compose_config("config", overrides, run_mode=RunMode.RUN)
            assert described(composed) == described(expected)
            composed.hydra.job.name = "changed by who asked"


@pytest.mark.parametrize("overrides", MISTAKES, ids=" ".join)
def test_mistakes_are_those_that_hydra_finds(
    overrides: list[str], compose: Callable[..., DictConfig], as_hydra_does: Callable[[], None]
) -> None:
    with pytest.raises(Exception) as ours:
        compose(overrides)
    as_hydra_does()
    with pytest.raises(type(ours.value)) as theirs:
        compose(overrides)
    assert str(ours.value) == str(theirs.value)


def test_the_search_for_the_mode_and_the_run_share_one_composition(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = []
    merged = loading.Loader._composition
    monkeypatch.setattr(
        loading.Loader, "_composition", lambda *arguments: count.append(1) or merged(*arguments)
    )
    config = compose(["seed=3"], RunMode.MULTIRUN)
    assert len(count) == 1
    assert config.seed == 3


def test_no_file_is_read_twice_in_a_command(
    compose: Callable[..., DictConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []
    as_it_was = plain_files._read
    monkeypatch.setattr(
        plain_files, "_read", lambda source, path: read.append(path) or as_it_was(source, path)
    )
    compose(["pipeline=rag"], RunMode.MULTIRUN, RunMode.RUN, RunMode.RUN)
    assert "pipeline/rag" in read
    assert len(set(read)) == len(read)


def test_a_clone_is_a_deep_copy_with_flags_types_and_caches_of_its_own(
    compose: Callable[..., DictConfig],
) -> None:
    config = compose([])
    config.hydra.run.dir  # noqa: B018  (fills the cache of the resolver "now")
    copied, deep = clone(config), copy.deepcopy(config)
    assert described(copied) == described(deep) == described(config)
    assert OmegaConf.get_cache(copied) == OmegaConf.get_cache(config) != {}
    copied.cluster.pools.llm.count = 9
    OmegaConf.set_readonly(copied, True)
    OmegaConf.clear_cache(copied)
    assert config.cluster.pools.llm.count == 1
    assert not OmegaConf.is_readonly(config)
    assert OmegaConf.get_cache(config) == OmegaConf.get_cache(deep) != {}


def test_saved_settings_read_as_those_that_were_composed(
    compose: Callable[..., DictConfig], tmp_path: Path
) -> None:
    from hydra.core import utils

    config = compose([])
    config.seed = "0x10"  # texts that YAML would take for numbers keep their quotes
    with composing():
        utils._save_config(config, "config.yaml", tmp_path / "new")
    saved = OmegaConf.load(tmp_path / "new" / "config.yaml")
    assert OmegaConf.to_yaml(saved) == OmegaConf.to_yaml(config)


def described(node: Node | None) -> object:
    """Return values, types, flags and order of a configuration."""
    assert node is not None
    metadata = node._metadata
    own = (
        type(node).__name__,
        metadata.key,
        metadata.ref_type,
        metadata.object_type,
        metadata.optional,
        {name: flag for name, flag in (metadata.flags or {}).items() if flag is not None},
    )
    content = node.__dict__.get("_content")
    if isinstance(content, dict):
        return own, [(name, described(below)) for name, below in content.items()]
    if isinstance(content, list):
        return own, [described(below) for below in content]
    return own, node._value()


@pytest.mark.parametrize("overrides", OVERRIDES, ids=" ".join)
def test_configurations_become_the_plain_values_that_omegaconf_gives(
    compose: Callable[..., DictConfig], overrides: list[str]
) -> None:
    composed = compose(overrides)
    as_saved = OmegaConf.to_container(composed, resolve=False, enum_to_str=True)
    assert repr(to_plain(composed, enum_to_str=True)) == repr(as_saved)
    assert repr(to_plain(composed)) == repr(OmegaConf.to_container(composed, resolve=False))
    with open_dict(composed):
        del composed["hydra"]  # which refers to what Hydra sets as a job begins
    resolved = OmegaConf.to_container(composed, resolve=True)
    assert "${" not in repr(resolved)
    assert repr(to_plain(composed, resolve=True)) == repr(resolved)


@pytest.mark.parametrize(
    "text",
    [
        "a: ${b}\nb: {c: '${d}', e: [1, '${d}']}\nd: '???'\n",
        "a: ${none}\n",
        "a: ${oc.env:NO_SUCH_VARIABLE}\n",
        "a: '\\${b}'\nb: ${.a}\n",
        "a: null\nb: ['${a}', '${oc.dict.keys:c}', 'x-${d}']\nc: {k: 1}\nd: 2.5\n",
    ],
)
def test_references_become_the_values_and_the_errors_that_omegaconf_gives(text: str) -> None:
    config = OmegaConf.create(text)
    assert outcome(to_plain, config) == outcome(OmegaConf.to_container, config)


def outcome(convert: Callable[..., object], config: DictConfig) -> str:
    try:
        return repr(convert(config, resolve=True))
    except OmegaConfBaseException as error:
        return f"{type(error)}: {error}"
