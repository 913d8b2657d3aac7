"""The kernels of routed experts that a deployment of TensorRT-LLM asks for (moe_config.backend)."""

from __future__ import annotations

from typing import Any

from hermes_flow.config.model import ExpertKernels
from hermes_flow.deployments.models import catalog_entry

BACKEND = "moe_backend"  # what the flag sets until the model is known
_FLAG = "--moe-config.backend"
BACKENDS: dict[ExpertKernels, str] = {"deepgemm": "DEEPGEMM", "cutlass": "CUTLASS"}
# The weights that each of them is modelled for, and where TensorRT-LLM has it by default.
_FOR = {"DEEPGEMM": "fp8", "CUTLASS": "nvfp4"}
_DEFAULTS = ("TRTLLM", "TRITON", "AUTO")


def read_backend(
    keys: dict[str, Any], ignored: dict[str, str], model: Any, weights: str | None = None
) -> None:
    """Put ``model.experts.kernels`` in place of the backend, or name it among what is ignored with the reason.

    ``weights`` is their precision where the name of the checkpoint says it; None where the catalog's entry has it.
    """
    name = keys.pop(BACKEND, None)
    if name is None:
        return
    kernels = next((key for key, value in BACKENDS.items() if value == name), None)
    if kernels is None:
        modelled = name in _DEFAULTS
        ignored[_FLAG] = (
            f"{name}: the kernels by default, as they were measured on the hardware"
            if modelled
            else f"not modelled: experts with {name}"
        )
        return
    if weights is None and model:
        weights = catalog_entry(str(model)).get("precision", {}).get("weights")
    if weights == _FOR[name]:
        keys["model.experts.kernels"] = kernels
    elif model:
        ignored[_FLAG] = (
            f"{name}: modelled for experts in {_FOR[name]}, and those of {model} are in {weights}"
        )
    else:
        ignored[_FLAG] = f"if the experts are in {_FOR[name]}, set model.experts.kernels={kernels}"
