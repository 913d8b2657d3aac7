"""Explains a run in figures and in words: what the summary has under ``why``, and the saturation of pools."""

from __future__ import annotations

from typing import Any

from hermes_flow.metrics.latency import Latencies
from hermes_flow.metrics.why.clients import Clients
from hermes_flow.metrics.why.headroom import Headroom, estimate_headroom
from hermes_flow.metrics.why.loads import Saturation, saturations
from hermes_flow.metrics.why.missed import Missed, explain_missed
from hermes_flow.metrics.why.reliefs import Relief
from hermes_flow.metrics.why.words import headroom_text, missed_text
from hermes_flow.program.program import Program
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.recording.recording import Recording

_LEAST_GAIN = 0.01
_LEAST_SHARE = 0.005


@dataclass(frozen=True, slots=True)
class Why:
    """The explanation of a run: ``missed`` of a bound, or the ``headroom`` where all are met.

    ``saturation`` is that of every pool by name. ``relief`` is the resource behind the missed bound; None where more
    of no resource would save 1 % of the time.
    """

    program: Program
    saturation: dict[str, Saturation]
    missed: Missed | None = None
    headroom: Headroom | None = None

    @property
    def relief(self) -> Relief | None:
        """The resource that would help most."""
        if self.missed is None or not self.missed.reliefs:
            return None
        best = self.missed.reliefs[0]
        return best if best.gain >= _LEAST_GAIN else None

    @property
    def text(self) -> str:
        """The explanation in sentences; empty where there is nothing to explain."""
        if self.missed is not None:
            return missed_text(self.missed, self.relief, self.program, self.saturation)
        return "" if self.headroom is None else headroom_text(self.headroom)

    def summary(self) -> dict[str, Any]:
        """Return the figures as they stand under ``why`` in the summary."""
        missed, relief, headroom = self.missed, self.relief, self.headroom
        names = [pool.name for pool in self.program.pools]
        causes: dict[str, float] = {}
        for part, share in missed.shares.items() if missed is not None else ():
            if share >= _LEAST_SHARE:
                causes[f"{part.stage}.{names[part.pool]}.{part.cause}"] = share
        return {
            "bound": None if missed is None else missed.bound,
            "requests": None if missed is None else missed.missing,
            "causes": causes,
            "resource": None
            if relief is None
            else {
                "pool": None if relief.pool is None else names[relief.pool],
                "name": relief.resource,
                "gain": relief.gain,
            },
            "headroom": None
            if headroom is None
            else {"load_factor": headroom.factor, "fails": headroom.fails, "pool": headroom.pool},
            "text": self.text,
        }


def explain(recording: Recording, found: Latencies, bounds: dict[str, dict[str, Any]]) -> Why:
    """Return why a bound of the SLO is missed, or how much headroom there is where all of them are met."""
    known = bool(bounds) and bool((recording.status == 0).any())
    missed = known and not all(bound["met"] for bound in bounds.values())
    clients = Clients(recording, keep=missed)
    loads = saturations(clients)
    if missed:
        return Why(recording.program, loads, missed=explain_missed(recording, found, bounds, clients))
    if not known:
        return Why(recording.program, loads)
    return Why(recording.program, loads, headroom=estimate_headroom(clients, bounds, loads))
