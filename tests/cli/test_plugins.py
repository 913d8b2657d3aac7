"""What users register themselves: by the key ``plugins``, by an entry point, and as docs/extend.md shows it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from cli.command import ROOT, hermes_flow, in_this_process, plugins_forgotten

import hermes_flow as hf
from hermes_flow.errors import HermesFlowError

PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(\"\"\".*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
YAML = re.findall(r"^```yaml\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """What a test registers is forgotten when it is over."""
    with plugins_forgotten():
        yield


def example(registered: str) -> str:
    """Return the module of the page that registers this name."""
    (found,) = (text for text in PYTHON if f'.register("{registered}")' in text)
    return found


def test_a_stage_kind_and_its_pipeline_live_outside_the_package(tmp_path: Path) -> None:
    (tmp_path / "archive.py").write_text(example("archive"))
    (pipeline,) = (text for text in YAML if "kind: archive" in text)
    (tmp_path / "my_conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "my_conf" / "pipeline" / "chat_archived.yaml").write_text(pipeline)
    done = in_this_process(
        tmp_path,
        *("--config-dir", "my_conf", "plugins=[archive.py]", "pipeline=chat_archived"),
        *("cluster.pools.host.serves=[archive]", "workload.requests=200"),
    )
    assert done.status == 0, done.err
    stages = pl.read_parquet(tmp_path / done.folder / "stages.parquet")
    archived = stages.filter(pl.col("stage") == "archive")
    assert set(archived["kind"]) == {"archive"}
    assert 30 < len(archived) < 90  # three in ten of 200
    assert archived["service_s"].to_list() == pytest.approx([0.25] * len(archived))
    assert "archive" in json.loads((tmp_path / done.folder / "summary.json").read_text())["stages"]


def test_every_example_of_the_page_runs_in_a_sweep(tmp_path: Path) -> None:
    names = {"two_choices": "router", "one_by_one": "batching", "short_classes": "packing"}
    names |= {"evening": "arrivals", "proxy_log": "format"}
    for registered, stem in names.items():
        (tmp_path / f"{stem}.py").write_text(example(registered))
    rows = "\n".join(f"{1000 + 90 * number},300,20" for number in range(40))
    (tmp_path / "proxy.csv").write_text(f"at_ms,prompt,completion\n{rows}\n")
    plugins = f"plugins=[{','.join(f'{stem}.py' for stem in names.values())}]"
    done = in_this_process(
        tmp_path,
        *("-m", plugins, "workload=synthetic", "workload.requests=40", "workload.arrivals=evening"),
        *(
            "cluster.pools.llm.count=2",
            "cluster.pools.llm.routing=two_choices",
            "cluster.pools.llm.batching=one_by_one",
            "cluster.pools.llm.packing={order: short_classes, class_tokens: 500}",
        ),
        "workload.rate_per_s=1,2",
    )
    assert done.status == 0, done.err
    assert len(pl.read_parquet(next(tmp_path.glob("outputs/*/*-sweep/sweep.parquet")))) == 2
    done = in_this_process(tmp_path, plugins, "workload=trace", "workload.path=proxy.csv")
    assert done.status == 0, done.err
    assert "40 of 40 completed" in done.out


@pytest.mark.parametrize("layout", ["replicas", "disaggregated", "hgx", "rack", "hybrid"])
def test_the_batching_policy_of_the_page_runs_on_every_layout(layout: str, tmp_path: Path) -> None:
    (tmp_path / "batching.py").write_text(example("one_by_one"))
    pools = ("prefill", "decode") if layout in ("disaggregated", "rack") else ("llm",)
    policies = [f"cluster.pools.{pool}.batching=one_by_one" for pool in pools]
    load = ("workload=synthetic", "workload.requests=40", "workload.rate_per_s=3")
    done = in_this_process(tmp_path, "plugins=[batching.py]", f"cluster={layout}", *policies, *load)
    assert done.status == 0, done.err
    assert "40 of 40 completed" in done.out


@pytest.mark.parametrize(
    ("named", "text", "said"),
    [
        ("mine.py", None, "plugins: there is no file mine.py in"),
        ("no_such_module", None, "plugins: no module is called 'no_such_module'; expected one that can be"),
        (
            "mine.py",
            "def broken(:\n",
            "SyntaxError: invalid syntax\n  {folder}/mine.py:1 (HYDRA_FULL_ERROR=1 shows",
        ),
        (
            "mine.py",
            "import numpy\n\nnumpy.no_such_thing\n",
            "AttributeError: module 'numpy' has no attribute 'no_such_thing'\n  {folder}/mine.py:3 (HYDRA",
        ),
        (
            "mine.py",
            "import not_installed_here\n",
            "ModuleNotFoundError: No module named 'not_installed_here'",
        ),
        (
            "mine.py",
            example("two_choices").replace('"two_choices"', '"random"'),
            "ValueError: routing policy 'random' is registered twice",
        ),
        (
            "mine.py",
            example("two_choices").replace(
                '"two_choices"', '"heavy_light"'
            ),  # built in, and not imported yet
            "ValueError: routing policy 'heavy_light' is registered twice",
        ),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_named_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, text: str | None, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "mine.py").write_text(text)
    with pytest.raises(HermesFlowError) as caught:
        hf.compose([f"plugins=[{named}]"])
    assert said.format(folder=tmp_path) in str(caught.value)


def test_a_plug_in_that_failed_can_be_mended_and_loaded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mended.py").write_text(example("two_choices") + "\n\n1 / 0\n")
    with pytest.raises(HermesFlowError, match="ZeroDivisionError"):
        hf.compose(["plugins=[mended.py]"])
    (tmp_path / "mended.py").write_text(example("two_choices"))
    config = hf.compose(["plugins=[mended.py]", "cluster.routing=two_choices", "workload.requests=5"])
    assert hf.simulate(hf.compile(config)).summary["requests"]["completed"] == 5


def installed(folder: Path, target: str) -> str:
    """Make a package that is as good as installed, with an entry point and a pipeline; return its PYTHONPATH."""
    package = folder / "site" / "my_package"
    (package / "conf" / "pipeline").mkdir(parents=True)
    for part in (package, package / "conf"):
        (part / "__init__.py").write_text("")
    (package / "stages.py").write_text(example("archive"))
    (package / "conf" / "pipeline" / "mine.yaml").write_text(
        "name: mine\nstages:\n  prefill: {kind: prefill}\n  decode: {kind: decode, after: [prefill]}\n"
        "  archive: {kind: archive, after: [decode], call_ms: 250}\n"
    )
    info = folder / "site" / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[hermes_flow.plugins]\nstages = {target}\n")
    return os.pathsep.join([str(ROOT), str(folder / "site")])


INSTALLED = (
    "pipeline=mine",
    "cluster.pools.host.serves=[archive]",
    "hydra.searchpath=[pkg://my_package.conf]",
)


def test_an_installed_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    path = installed(tmp_path, "my_package.stages")
    done = hermes_flow(tmp_path, "compile", *INSTALLED, PYTHONPATH=path)
    assert done.status == 0, done.err
    assert re.search(r"archive +on host +after generate", done.out)


def test_a_broken_package_is_named_when_it_is_looked_for(tmp_path: Path) -> None:
    path = installed(tmp_path, "my_package.none")
    done = hermes_flow(tmp_path, "compile", *INSTALLED, PYTHONPATH=path)
    assert done.status == 1
    assert "the plug-in my_package.none of my-package failed: ModuleNotFoundError" in done.err
