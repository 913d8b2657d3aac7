"""Saved configurations are read as OmegaConf reads them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from cli.command import in_this_process
from omegaconf import OmegaConf

from hermes_flow.config.quick_yaml import read_plain, read_resolved

TEXTS = [
    "a: 1e3\nb: 2026-11-30\nc: on\nd: [1, {e: '???', f: null}]\n",
    "a: {b: [1, 2], c: 'x'}\nd: ${a}\ne: [\"${a.b}\", '${d.c}-${a.c}']\nf: \\${a}\n",
    "a: ${b}\nb: ${c}\nc: 0.5\n",
    "a: ${none}\nb: ${c}\nc: 1\n",  # one that cannot be resolved
    "a: ${b}\nb: ???\n",
    "1: a\ntrue: ${b}\nb: 2.0\n",
]


def as_omegaconf_reads(text: str) -> object:
    config = OmegaConf.create(text)
    try:
        return OmegaConf.to_container(config, resolve=True)
    except Exception:
        return OmegaConf.to_container(config, resolve=False)


@pytest.mark.parametrize("text", TEXTS)
def test_values_are_those_of_omegaconf(text: str) -> None:
    assert repr(read_resolved(text)) == repr(as_omegaconf_reads(text))
    assert repr(read_plain(text)) == repr(OmegaConf.to_container(OmegaConf.create(text), resolve=False))


def test_a_saved_configuration_of_a_run_is_read_whole(tmp_path: Path) -> None:
    in_this_process(tmp_path, "compile", "pipeline=rag", "cluster=hgx", "hydra.run.dir=run")
    text = (tmp_path / "run" / ".hydra" / "config.yaml").read_text(encoding="utf-8")
    assert "${" in text
    assert read_resolved(text) == as_omegaconf_reads(text)
    assert "${" not in repr(read_resolved(text))


@pytest.mark.parametrize("text", ["a: 1\na: 2\n", "{: [", "a: [1\n"])
def test_what_is_not_yaml_is_an_error(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        read_resolved(text)
