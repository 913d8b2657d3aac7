"""A stage on the pool that serves it; the following phases decide its work."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.units import Ints
from hermes_flow.program.work import EarlierPrompt
from hermes_flow.stages.graph import Stage
from hermes_flow.stages.kind import StageKind


@dataclass(frozen=True, slots=True)
class EncodedImages:
    """The patches of all images of each request, and the stage that encodes them: ``params`` of its kind."""

    patches: Ints
    params: StageKind


@dataclass(frozen=True, slots=True)
class PlacedStage:
    """An occurrence of a stage, or of a prefill with its decode, on the pool that serves it.

    ``stages`` are those one or two. ``pool`` and the places of others (``after``, ``with_op``, ``kv_from``) are
    indices. ``tokens`` are those of the prompt for a prefill or a decode, ``output`` those of the answer; other
    stages have no ``output``. ``known_ns`` are measured times of tasks, UNKNOWN where there is none. ``kv_from``
    is, for a decode on a pool of its own, its prefill. ``images`` are those that a prefill encodes itself. The others
    are as in Op and Generate. Columns have an entry for each request.
    """

    name: str
    stages: tuple[Stage, ...]
    pool: int
    after: tuple[int, ...]
    tokens: Ints
    taken: NDArray[np.bool_] | None = None
    output: Ints | None = None
    service_ns: Ints | None = None
    known_ns: Ints | None = None
    decided: tuple[int, int] | None = None
    with_op: int | None = None
    at_token: Ints | None = None
    extends: EarlierPrompt | None = None
    branch: int = 0
    written: Ints | None = None
    kv_from: int | None = None
    images: EncodedImages | None = None

    @property
    def stage(self) -> Stage:
        """Its first stage, which describes its work, except for a prefill with its decode."""
        return self.stages[0]

    @property
    def prefills(self) -> bool:
        """Whether it computes a prompt before an answer."""
        return self.stages[0].role == "prompt"

    @property
    def taken_tokens(self) -> Ints:
        """The tokens of its requests."""
        return self.tokens if self.taken is None else self.tokens[self.taken]
