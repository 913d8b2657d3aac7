"""Files of a configuration are read once in a Python session, and again when they have changed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hugging_face_texts import QWEN3_8B, written

import hermes_flow as hf
from hermes_flow.config import compose as composing
from hermes_flow.config import kept_loader, plain_files
from hermes_flow.config.folders import config_folder
from hermes_flow.errors import HermesFlowError


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built-in files that stands for them."""
    copy = tmp_path / "conf"
    shutil.copytree(config_folder(), copy)
    for module in (composing, kept_loader):
        monkeypatch.setattr(module, "config_folder", lambda: copy)
    return copy


def requests(config: hf.Config) -> int:
    return config.workload.requests  # type: ignore[union-attr, no-any-return]


def test_the_same_choices_read_no_file_again(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    plain = plain_files._read

    def noting(source: object, path: str) -> object:
        read.append(path)
        return plain(source, path)  # type: ignore[arg-type]

    monkeypatch.setattr(plain_files, "_read", noting)
    hf.compose(["workload=synthetic", "workload.requests=7"])
    read.clear()
    assert requests(hf.compose(["workload=synthetic", "workload.requests=8"])) == 8
    assert read == []


def test_changed_new_and_removed_files_are_seen(conf: Path) -> None:
    assert hf.compose().hardware.name == "h100_sxm"
    path = conf / "hardware" / "h100_sxm.yaml"
    path.write_text(path.read_text().replace("name: h100_sxm", "name: changed"))
    assert hf.compose().hardware.name == "changed"
    (conf / "hardware" / "mine.yaml").write_text("defaults: [h100_sxm, _self_]\nname: mine\n")
    assert hf.compose(["hardware=mine"]).hardware.name == "mine"
    (conf / "hardware" / "mine.yaml").unlink()
    with pytest.raises(HermesFlowError, match="there is no 'mine'"):
        hf.compose(["hardware=mine"])
    assert hf.compose().hardware.name == "changed"


def test_changed_files_of_the_user_are_seen(tmp_path: Path) -> None:
    (tmp_path / "slo").mkdir()
    for bound in (100.0, 200.0):
        (tmp_path / "slo" / "mine.yaml").write_text(f"name: mine\nttft_ms: {{p99: {bound}}}\n")
        assert hf.compose(["slo=mine"], config_dir=tmp_path).slo.ttft_ms == {"p99": bound}
        assert hf.compose(["slo=mine", f"hydra.searchpath=[{tmp_path}]"]).slo.ttft_ms == {"p99": bound}


def test_a_changed_model_of_hugging_face_is_seen(tmp_path: Path) -> None:
    path = written(tmp_path, QWEN3_8B)
    for layers in (36, 35):
        text = json.loads(path.read_text()) | {"num_hidden_layers": layers}
        path.write_text(json.dumps(text))
        assert hf.compose([f"model={path}"]).model.layers == layers


def test_configurations_share_nothing() -> None:
    first = hf.compose(["pipeline=rag"])
    first.pipeline.stages["search"]["probes"] = -1
    assert hf.compose(["pipeline=rag"]).pipeline.stages["search"]["probes"] != -1


def test_few_choices_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_loader, "_MOST_CHOICES", 2)
    for name in ("none", "chat", "rag", "none"):
        assert hf.compose([f"slo={name}"]).slo.name == name
        loader = kept_loader._Kept.loader
        assert loader is not None
        assert loader.choices_known <= 2
