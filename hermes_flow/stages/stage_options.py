"""The keys that every stage may have beside those of its kind."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from hermes_flow.config.quantities import Branches, Bytes, Share
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class StageOptions:
    """The keys of every stage besides those of its kind.

    ``repeat`` names the loop it belongs to, ``route`` the outcomes of the pipeline's routes for which it is taken.
    Of a decode: ``branches`` answers are written side by side, and with ``vote`` only until so many are complete.
    Of a prefill: ``continues`` names the decode whose prompt and answer its prompt begins with, ``reads`` decodes
    whose answers, and nothing else of what they have read, it holds besides. A decode with ``pause`` stops now and
    then for the stages that are ``during`` it.
    """

    after: tuple[str, ...] = ()
    """The stages that come before this one; it waits for all of them."""
    pool: str | None = None
    """The pool that serves it; needed where several could."""
    model: str | None = None
    """The model that serves it; needed where several could."""
    share: Share = 1.0
    """The share of requests that take it, drawn at random."""
    when: str | None = None
    """The condition under which a request takes it, such as ``input_tokens > 2048``."""
    repeat: str | None = None
    route: dict[str, str] = field(default_factory=dict)
    branches: Branches = 1
    vote: Branches | None = None
    continues: str | None = None
    reads: tuple[str, ...] = ()
    pause: dict[str, Any] | None = None
    during: str | None = None
    measured: dict[str, Any] | None = None
    """Its measured time: ``fixed_us`` and ``per_token_us``, or the ``path`` of a table of ``tokens`` and
    ``time_us``.
    """
    bytes_out: Bytes | None = None
    """Bytes that it leaves for later stages on other machines, for each request; null: as its kind reckons."""
