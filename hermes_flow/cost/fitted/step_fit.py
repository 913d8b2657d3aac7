"""The coefficients of a fitted step in µs, as a YAML file holds them (docs/calibration.md)."""

from __future__ import annotations

from dataclasses import dataclass

from hermes_flow.config.quantities import Microseconds, Size, Tokens


@dataclass(frozen=True, slots=True)
class StepFit:
    """The step of one model on one number of devices.

    Every step takes ``step_us``. ``tokens_us`` are the times of so many ``tokens``, and ``per_token_us`` the slope
    after the last of them; likewise ``decodes_us`` for decoding sequences. ``per_context_us`` counts per computed
    token of these. Beside prompts each decode takes ``per_beside_us`` in place of ``decodes_us``, if it is given.
    Steps with prompts take ``prefill_us`` more, ``per_prompt_us`` for each prompt after the first,
    ``per_pair_us`` per query-key pair and ``per_past_us`` per computed token of the prompts. The largest steps
    measured had ``most_tokens`` tokens, and ``most_decodes`` decodes.
    """

    step_us: Microseconds
    per_token_us: Microseconds = 0.0
    per_decode_us: Microseconds = 0.0
    """The slope after the last of ``decodes``."""
    per_context_us: Microseconds = 0.0
    per_beside_us: Microseconds | None = None
    """The time of a decode beside prompts, as they have tokens of their own; null: as ``decodes``."""
    prefill_us: Microseconds = 0.0
    per_prompt_us: Microseconds = 0.0
    per_pair_us: Microseconds = 0.0
    per_past_us: Microseconds = 0.0
    tokens: tuple[Size, ...] = ()
    tokens_us: tuple[Microseconds, ...] = ()
    decodes: tuple[Size, ...] = ()
    """The numbers of decoding sequences at which the slope changes."""
    decodes_us: tuple[Microseconds, ...] = ()
    most_tokens: Tokens = 0
    most_decodes: Tokens = 0
    source: str = ""
    """Where the figures come from."""
    little_support: str = ""
    """The slopes that only a few measured steps determine; they are held below what all of a step would cost."""
