"""The work of an LLM stage, on an engine of the cluster or on an endpoint."""

from __future__ import annotations

from hermes_flow.program.work import Forward, Generate, PromptImages
from hermes_flow.stages.placed import PlacedStage


def llm_work(placed: PlacedStage, images: PromptImages | None = None) -> Generate | Forward:
    """Return the prompts and answers of a stage; without an answer it is a forward pass over each prompt.

    ``images`` are those of each prompt, where the engine encodes them itself.
    """
    if placed.output is None:
        return Forward(placed.tokens, placed.extends)
    return Generate(placed.tokens, placed.output, placed.extends, placed.branch, placed.written, images)
