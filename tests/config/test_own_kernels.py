"""No engine has times of kernels and experts that its own file does not state, down to the last figure.

The files of engines are built on vLLM's and merge with it key by key, and with the hardware's own. So a new figure in
either would reach all engines, although it was measured with the kernels of one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import hermes_flow as hf
from hermes_flow.config.folders import config_folder, hardware_names
from hermes_flow.config.schema import EngineOverhead

BASE = "vllm"
ENGINES = sorted(path.stem for path in (config_folder() / "engine").glob("*.yaml") if path.stem != BASE)
GROUPS = ("experts", "kernels")


def strays(found: Any, stated: Any, path: str) -> Iterator[str]:
    """Yield the keys of what an engine has on a hardware that differ from what its own file states of them.

    Figures that the file leaves out are those of the schema.
    """
    given = stated if isinstance(stated, dict) else {}
    if is_dataclass(found):
        for field in fields(found):
            value, key = getattr(found, field.name), f"{path}.{field.name}"
            yield from strays(value, given[field.name] if field.name in given else blank(field), key)
    elif isinstance(found, dict):
        for name, value in found.items():
            yield from strays(value, given.get(name), f"{path}.{name}")
    elif found != stated:
        yield path


def blank(field: Field[Any]) -> Any:
    return None if field.default is MISSING else field.default


def strays_of(engine: str, folder: Path, hardware: str, *, config_dir: Path | None = None) -> list[str]:
    """Return those of ``engine``, whose file is in ``folder``, on ``hardware``."""
    chosen = hf.compose([f"engine={engine}", f"hardware={hardware}"], config_dir=config_dir).hardware
    overhead = chosen.engine
    if overhead is None:
        return []
    assert isinstance(overhead, EngineOverhead)
    own = yaml.safe_load((folder / f"{engine}.yaml").read_text(encoding="utf-8"))["overheads"]
    stated = own.get(chosen.overheads_of) or {}
    found: list[str] = []
    for group in GROUPS:
        value = getattr(overhead, group)
        if value is not None:
            found += strays(value, stated.get(group), group)
    return found


def test_there_are_engines_that_are_built_on_another() -> None:
    assert {*ENGINES} >= {"sglang", "tensorrt_llm"}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("hardware", hardware_names())
def test_every_figure_is_one_that_the_engines_own_file_states(engine: str, hardware: str) -> None:
    assert strays_of(engine, config_folder() / "engine", hardware) == []


def test_a_figure_of_vllm_or_of_the_hardware_would_be_found(tmp_path: Path) -> None:
    for group in ("engine", "hardware"):
        (tmp_path / group).mkdir()
    fp8 = "{compute: 0.23, memory: 0.94, launch_us: 17.6, quantize: 0.3, tile_rows: 69, cast_elsewhere: 1}"
    (tmp_path / "engine" / "mine.yaml").write_text(
        "defaults: [vllm, _self_]\nname: mine\n"
        f"overheads: {{b200_sxm: {{experts: {{fp8: {fp8}, nvfp4: {{compute: 0.5, by_rows: {{8: 2}}}}}}}}}}\n",
        encoding="utf-8",
    )
    (tmp_path / "hardware" / "fast.yaml").write_text(
        "defaults: [b200_sxm, _self_]\nname: fast\n"
        "engine:\n  experts: {fp8: {memory: 0.9}}\n"
        "  kernels: {source: mine, all_reduce: {2: {alpha_us: 5, fraction: 0.5}}}\n",
        encoding="utf-8",
    )
    of_vllm = strays_of("mine", tmp_path / "engine", "b200_sxm", config_dir=tmp_path)
    assert {"experts.fp8.by_rows.16", "experts.nvfp4.tile_rows"} <= {*of_vllm}  # left out of entries
    assert "experts.mxfp4_fp8.compute" in of_vllm  # an entry that the engine does not have
    assert not {"experts.fp8.compute", "experts.nvfp4.compute", "experts.nvfp4.by_rows.8"} & {*of_vllm}
    of_both = strays_of("mine", tmp_path / "engine", "fast", config_dir=tmp_path)
    assert {*of_both} - {*of_vllm} >= {"experts.fp8.memory", "kernels.all_reduce.2.fraction"}
