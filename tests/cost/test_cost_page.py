"""The table of operators in docs/cost.md has the constants of the H100 in the catalog."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def row(beginning: str) -> str:
    lines = (ROOT / "docs/cost.md").read_text(encoding="utf-8").splitlines()
    (found,) = [line for line in lines if line.startswith(f"| {beginning}")]
    return found


def brief(value: float) -> str:
    """The number as the page writes it, without a zero before the point."""
    return f"{value:g}".removeprefix("0") or "0"


def constants() -> dict[str, str]:
    efficiency = yaml.safe_load((ROOT / "conf/hardware/h100_sxm.yaml").read_text(encoding="utf-8"))[
        "efficiency"
    ]
    gemm, decode, experts = (efficiency[name] for name in ("gemm", "decode_attention", "experts"))
    prefill, latent = efficiency["prefill_attention"], efficiency["latent_decode"]
    return {
        "matrix product": f"bf16: c {brief(gemm['bf16']['compute'])}, e {brief(gemm['bf16']['memory'])}, "
        f"{gemm['bf16']['launch_us']} µs; fp8: {brief(gemm['fp8']['compute'])}, {brief(gemm['fp8']['memory'])}, "
        f"{gemm['fp8']['launch_us']} µs, q {brief(gemm['fp8']['quantize'])}",
        "decode attention, a layer": f"bf16: e {brief(decode['bf16']['memory'])}, "
        f"s {decode['bf16']['extra_tokens']}; fp8: {brief(decode['fp8']['memory'])}, "
        f"{decode['fp8']['extra_tokens']};",
        "decode attention over latent KV": f"l {brief(latent['bf16'])} of the bf16 peak for KV in bf16, "
        f"{brief(latent['fp8'])} in fp8",
        "prefill attention": f"c {brief(prefill['compute'])}, h {prefill['half_length']};",
        "mixture of experts": f"bf16: c {brief(experts['bf16']['compute'])}, e {brief(experts['bf16']['memory'])}, "
        f"{experts['bf16']['launch_us']} µs, t {experts['bf16']['tile_rows']}; "
        f"fp8: {brief(experts['fp8']['compute'])}, {brief(experts['fp8']['memory'])}, "
        f"{experts['fp8']['launch_us']} µs, q {brief(experts['fp8']['quantize'])}, t {experts['fp8']['tile_rows']}",
    }


@pytest.mark.parametrize("operator", constants())
def test_the_page_has_the_constants_of_the_catalog(operator: str) -> None:
    assert constants()[operator] in row(operator)
