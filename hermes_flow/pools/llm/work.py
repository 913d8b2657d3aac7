"""The work of an LLM stage, on an engine of the cluster or on an endpoint."""

from __future__ import annotations

from hermes_flow.program.units import Ints
from hermes_flow.program.work import Forward, Generate
from hermes_flow.stages.placed import PlacedStage


def llm_work(placed: PlacedStage, encode_ps: Ints | None = None) -> Generate | Forward:
    """Return the prompts and answers of a stage; without an answer it is a forward pass over each prompt.

    ``encode_ps`` is the time for the images of each prompt, where the engine encodes them itself.
    """
    if placed.output is None:
        return Forward(placed.tokens, placed.extends)
    return Generate(placed.tokens, placed.output, placed.extends, placed.branch, placed.written, encode_ps)
