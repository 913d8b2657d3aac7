"""The interface of batching policies for the program: an object with a name and settings."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol


class BatchingPolicy(Protocol):
    """Which sequences go into the next step of an LLM client; its contract is in pools/llm/scheduler.py."""

    gang: ClassVar[bool]
    """Whether it plans gangs: prompts padded to one length, decoded until the last one ends."""

    whole_prompts: ClassVar[bool]
    """Whether its steps may exceed the token budget by one long prompt."""

    def plan(self, client: Any) -> bool:
        """Plan what comes next on a client; return False where there is nothing to do."""
