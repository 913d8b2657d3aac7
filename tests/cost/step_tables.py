"""Tables of measured steps whose law is known, and the costs that are fitted to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from cost.catalog import deployment, hardware, model

from hermes_flow.cost import cost_models
from hermes_flow.program.step_cost import StepCost

SHAPES = [(prompt, 1, 64) for prompt in (32, 64, 128, 256, 512, 1024, 2048, 4096)]
SHAPES += [(256, batch, 64) for batch in (2, 4, 8, 16, 32)]
SHAPES += [(256, 1, output) for output in (128, 512, 2048)]

Time = Callable[[float, float], float]


def prefill_us(prompt: float, batch: float) -> float:
    """8 ms at rest; 40 µs a token, 60 from 1,024 tokens of a step on; 2 ns a pair."""
    tokens = prompt * batch
    return 8_000 + 40 * tokens + 20 * max(0.0, tokens - 1024) + 0.002 * batch * prompt * prompt / 2


def decode_us(sequences: float, context: float) -> float:
    """6 ms at rest, the 40 µs of a token, 30 µs a sequence and 0.05 µs a token of context."""
    return 6_000 + 70 * sequences + 0.05 * context


def write_shapes(
    path: Path,
    shapes: Iterable[Sequence[int]] = SHAPES,
    prefill: Time = prefill_us,
    decode: Time = decode_us,
    more: str = "",
) -> Path:
    """A table of shapes: prompt, batch, output and both times in ms; ``more`` are lines below."""
    lines = ["prompt,batch,output,prefill_ms,decode_ms"]
    for prompt, batch, output in shapes:
        step = decode(batch, batch * (prompt + output / 2))
        lines.append(f"{prompt},{batch},{output},{prefill(prompt, batch) / 1e3},{step / 1e3}")
    path.write_text("\n".join(lines) + "\n" + more)
    return path


def regression(
    path: Path | None = None, devices: int = 1, most: tuple[int, int] = (4096, 32), **keys: Any
) -> StepCost:
    """The step of a small model by ``cost=regression``, with steps of up to ``most`` tokens and sequences."""
    place = deployment(model("llama3_8b"), hardware("h100_sxm"), devices, *most)
    given = {"kind": "regression", **keys} | ({} if path is None else {"path": str(path)})
    return cost_models.parse(given, "cost").lower(place)


def us(picoseconds: float) -> float:
    return picoseconds / 1e6
