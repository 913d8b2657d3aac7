"""Hardware of the user's that is built on a catalog entry has that entry's kernels, not measured ones of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import hermes_flow as hf
from hermes_flow.config.folders import hardware_names
from hermes_flow.pools.llm.evidence import kernels_of

BUILT = "defaults: [h200_sxm, _self_]\nname: h20\nbandwidth_gb_s: 4000\npeak_tflops_bf16: 148\npeak_tflops_fp8: 296\n"


def found(folder: Path, text: str) -> hf.Config:
    (folder / "hardware").mkdir()
    (folder / "hardware" / "h20.yaml").write_text(text, encoding="utf-8")
    return hf.compose(["hardware=h20", "pipeline=llm", "workload.requests=5"], config_dir=str(folder))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ("", "h200_sxm"),
        ("efficiency: {kernels_of: h100_sxm}\n", "h100_sxm"),
        ("efficiency: {source: my own tables of kernels}\n", "h20"),
        ("efficiency: null\n", None),
    ],
)
def test_kernels_are_those_of_the_entry_that_it_is_built_on(
    tmp_path: Path, more: str, expected: str | None
) -> None:
    hardware = found(tmp_path, BUILT + more).hardware
    assert hardware is not None
    assert kernels_of(hardware) == expected


def test_its_error_bar_says_so(tmp_path: Path) -> None:
    summary = hf.simulate(hf.compile(found(tmp_path, BUILT))).summary
    kinds = {metric: bar["kind"] for metric, bar in summary["error"].items()}
    assert set(kinds) == {"ttft_s", "tpot_s", "e2e_s"}
    assert all(kind.startswith("h20 not measured, kernels of h200_sxm") for kind in kinds.values())


def test_entries_of_the_catalog_have_their_own_or_those_that_they_name() -> None:
    for name in hardware_names():
        hardware = hf.compose([f"hardware={name}"]).hardware
        assert hardware is not None
        fit = hardware.efficiency
        assert kernels_of(hardware) == (None if fit is None else fit.kernels_of or name)
