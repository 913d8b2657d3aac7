"""How the ranks of a benchmark run lie on its devices, as far as the row of the collection tells it.

A row states the devices that attention is cut over, those that hold a replica of it each, and the same of experts. In
InferenceMAX's rows of its later files these figures are products. A run on one node of 8 GPUs with experts that are
spread over the 8 (``tp: 8, ep: 8`` in its configuration) stands there as attention cut over 64 devices. Runs of vLLM
with spread experts have as many replicas of attention there as devices, but their scripts start one replica, and runs
of the same setting in an earlier file, which says so, have the same times (2 % apart or less).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

# Sources whose rows of SGLang and TensorRT-LLM have products: the devices are those that an expert is cut over there
PRODUCTS = ("source_file=2026-04-06", "db-dump/")
INFERENCEMAX = ("source_file=2026-", "db-dump/")  # how the sources of its rows begin
_USERS = re.compile(r"silicon_concurrency=(\d+)")


@dataclass(frozen=True, slots=True)
class Layout:
    """Devices that attention is cut over, replicas of it, and over how many of them whole experts are ``spread``.

    ``spread`` is 1 where all experts are cut over all devices.
    """

    tensor: int
    data: int
    spread: int

    @property
    def devices(self) -> int:
        """The number of devices of the run."""
        return self.tensor * self.data

    @property
    def spread_alone(self) -> bool:
        """Whether experts are either cut or spread, and not both."""
        return self.spread in (1, self.devices)


def layout(row: dict[str, Any]) -> Layout:
    """Return how a row's run lies on its devices."""
    tensor, data = row["tp_size"], max(1, row["attention_dp_size"] or 1)
    spread, source = row["moe_ep_size"] or 1, str(row["silicon_data_source"])
    if not source.startswith(INFERENCEMAX):
        return Layout(tensor, data, spread)
    if row["backend"] == "vllm":
        if data > 1 and tensor == data:
            return Layout(tensor, 1, tensor)
    elif source.startswith(PRODUCTS):
        devices = row["moe_tp_size"]
        if data > 1:  # two runs cut experts over the ranks of attention, which are spread here
            return Layout(1, devices, devices if spread == 1 else spread)
        return Layout(devices, 1, spread)
    return Layout(tensor, data, spread)


def users(row: dict[str, Any]) -> int | None:
    """Return how many users a row says that it had at once."""
    stated = _USERS.search(str(row["silicon_data_source"]))
    return None if stated is None else int(stated[1])
