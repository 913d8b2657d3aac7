"""``hermes-flow import model`` writes an entry of the catalog that another command can use."""

from __future__ import annotations

from pathlib import Path

import yaml
from cli.command import in_this_process
from hugging_face_texts import GEMMA3_27B, QWEN3_8B, written

import hermes_flow as hf
from hermes_flow.tasks import verbs


def test_an_imported_model_is_an_entry_with_its_source_and_runs(tmp_path: Path) -> None:
    folder = tmp_path / "My-8B"
    folder.mkdir()
    written(folder, QWEN3_8B)
    done = in_this_process(tmp_path, "import", "model", "My-8B", "task.into=mine")
    assert done.status == 0, done.err
    assert "my_8b: 8.19 billion parameters, 16.38 GB of weights" in done.out
    assert "hermes-flow --config-dir mine model=my_8b" in done.out
    text = (tmp_path / "mine" / "model" / "my_8b.yaml").read_text()
    assert "# source: Hugging Face config.json, read from My-8B" in text
    assert yaml.safe_load(text)["layers"] == 36
    # The entry and the file itself are the same model.
    entry = hf.compose(["model=my_8b"], config_dir=tmp_path / "mine").model
    assert entry == hf.compose([f"model={folder}"]).model
    again = in_this_process(tmp_path, "import", "model", "My-8B", "task.into=mine")
    assert again.status == 1
    assert "task.overwrite=true" in " ".join(again.err.split())


def test_a_model_that_is_built_in_gets_another_name(tmp_path: Path) -> None:
    folder = tmp_path / "Qwen3-8B"
    folder.mkdir()
    path = written(folder, QWEN3_8B)
    config = hf.compose(["task=import", "task.what=model", f"task.path={path}", f"task.into={tmp_path}"])
    text = verbs.parse(config.task, "task").run(config, tmp_path)
    assert "qwen3_8b is built in, so the entry is called qwen3_8b_imported" in " ".join(text.split())
    assert hf.compose(["model=qwen3_8b_imported"], config_dir=tmp_path).model.layers == 36


def test_an_import_says_what_it_leaves_out_and_takes_a_name(tmp_path: Path) -> None:
    path = written(tmp_path, GEMMA3_27B)
    config = hf.compose(
        ["task=import", "task.what=model", f"task.path={path}", f"task.into={tmp_path}", "task.name=gemma"]
    )
    text = verbs.parse(config.task, "task").run(config, tmp_path)
    assert "the encoder of vision_config is left out" in " ".join(text.split())
    assert hf.compose(["model=gemma"], config_dir=tmp_path).model.sliding_window is not None


def test_a_word_too_many_and_an_unknown_kind_of_import_are_named(tmp_path: Path) -> None:
    many = in_this_process(tmp_path, "import", "model", "a.json", "b.json")
    assert (many.status, "'b.json' is one word too many" in many.err) == (2, True)
    for words in (
        ("vllm", "serve", "m"),
        ("vllm", "--max-num-seqs", "8"),
        ("vllm serve m --max-num-seqs 8",),
    ):
        bare = in_this_process(tmp_path, "import", *words)
        assert (
            bare.status,
            "as in hermes-flow import vllm 'vllm serve …'" in " ".join(bare.err.split()),
        ) == (2, True)
    wrong = in_this_process(tmp_path, "import", "modle", "a.json")
    assert (wrong.status, "task.what: 'modle' is not valid" in wrong.err) == (1, True)
    broken = in_this_process(tmp_path, "import", "model", "a b.json")
    assert (broken.status, "a b.json: there is no such file" in broken.err) == (1, True)
