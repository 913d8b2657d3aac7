"""Where no pool serves a stage, the message says what to write, and what it says works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.folders import config_folder
from hermes_flow.errors import CompileError

SHORT = ["workload=synthetic", "workload.requests=5"]
HINT = re.compile(r"(?:; |\()((?:\+pool@|cluster\.pools\.)\S+(?: model@\S+)?) (?:adds|lets)")

PIPELINES = config_folder() / "pipeline"

# Ready pipelines that bring no pools, as a pipeline of a user's own, with what else is missing.
WITHOUT_A_POOL: dict[str, tuple[str, list[str]]] = {
    "no embedder and no vectors": ("rag", []),
    "no cross-encoder": ("rag_rewrite_rerank", ["+pool@cluster.pools.retrieval=retrieval"]),
    "no store": ("kv_reuse", ["cluster=disaggregated"]),
    "no tools": ("agent", []),
    "a host without a filter": (
        "chat_guarded",
        ["+pool@cluster.pools.guard=guard", "cluster.pools.host.serves=[tokenize,detokenize]"],
    ),
    "no guard": ("chat_guarded", []),
    "no router": ("routed", ["cluster=two_models"]),
    "no host": ("chat", ["cluster=only_llm"]),
    "no llm": ("chat", ["cluster=only_host"]),
    "no pool to decode": ("llm", ["cluster=only_prefill"]),
    "another model": (
        "llm",
        ["+pipeline.stages.prefill.model=mistral_7b", "+pipeline.stages.decode.model=mistral_7b"],
    ),
}
CLUSTERS = {
    "only_llm": "defaults: [/pool@pools.llm: llm, _self_]",
    "only_host": "defaults: [/pool@pools.host: host, _self_]",
    "only_prefill": "defaults: [/pool@pools.host: host, /pool@pools.prefill: prefill, _self_]",
}


@pytest.fixture(scope="module")
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("conf")
    for group in ("pipeline", "cluster"):
        (folder / group).mkdir()
    for name in {name for name, _ in WITHOUT_A_POOL.values()}:
        text = (PIPELINES / f"{name}.yaml").read_text(encoding="utf-8")
        text = re.sub(r"^defaults:\n(?:  .*\n)+", "", text, flags=re.M)
        (folder / "pipeline" / f"own_{name}.yaml").write_text(text, encoding="utf-8")
    for name, text in CLUSTERS.items():
        (folder / "cluster" / f"{name}.yaml").write_text(f"{text}\nname: {name}\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("case", WITHOUT_A_POOL)
def test_the_hint_of_a_stage_without_a_pool_works(case: str, own_folder: Path) -> None:
    pipeline, more = WITHOUT_A_POOL[case]
    words = [f"pipeline=own_{pipeline}", *more, *SHORT]
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose(words, config_dir=own_folder))
    hints = [match[1].split(" ") for problem in caught.value.problems if (match := HINT.search(problem))]
    assert len(hints) == len(caught.value.problems)
    followed = dict.fromkeys(word for hint in hints for word in hint)
    result = hf.simulate(hf.compile(hf.compose([*words, *followed], config_dir=own_folder)))
    assert result.summary["requests"]["completed"] == 5


@pytest.mark.parametrize(
    "words",
    [
        ["model=llama3_70b"],
        ["model=llama3_405b"],
        ["model=llama3_70b", "hardware=l40s", "cluster.pools.llm.tensor_parallel=2"],
        ["model=llama3_70b", "cluster=disaggregated"],
    ],
)
def test_the_hint_of_a_model_that_does_not_fit_works(words: list[str]) -> None:
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose([*words, *SHORT]))
    found = [re.search(r"GB; (\S.*) leaves room$", problem) for problem in caught.value.problems]
    hints = [word for match in found if match is not None for word in match[1].split(" ")]
    assert len(hints) >= len(caught.value.problems)
    hf.compile(hf.compose([*words, *hints, *SHORT]))


def test_a_model_that_the_catalog_lacks_comes_without_a_hint_that_cannot_work() -> None:
    words = ["pipeline=llm", *SHORT, "+pipeline.stages.prefill.model=mistrall_7b"]
    with pytest.raises(CompileError) as caught:
        hf.compile(hf.compose(words))
    assert "+pool@" not in str(caught.value)
