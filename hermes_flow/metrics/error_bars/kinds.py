"""Finds the group of left-out runs that a prediction is like, by its GPU, its model, its engine and its prompts."""

from __future__ import annotations

from collections.abc import Iterator

from hermes_flow.metrics.error_bars.table import ErrorTable, Interval
from hermes_flow.program.evidence import Evidence
from hermes_flow.program.quick_dataclass import dataclass

_GIVEN = {
    "affine": "its step times are given (cost=affine)",
    "replay": "its step times are recorded (cost=replay)",
    "regression": "its step times are fitted to measurements of your own (cost=regression)",
    "hybrid": "its step times are fitted to measurements of your own (cost=hybrid)",
    "kernels": "its step times come from tables of kernels (cost=kernels), for which too few runs are known",
}
_UNRECORDED = "how these were measured is not recorded"


@dataclass(frozen=True, slots=True)
class Kind:
    """The kind of a prediction: its name in plain words, and the interval of each metric."""

    text: str
    intervals: dict[str, Interval]


def why_none(evidence: Evidence) -> str | None:
    """Return why nothing is known about the error of such step times; None if something is."""
    if evidence.cost != "roofline":
        return _GIVEN.get(evidence.cost, f"no measured runs are known for cost={evidence.cost}")
    if evidence.kind == "cpu":
        return f"no measured run of an LLM on {evidence.hardware} or another CPU is known"
    return None


def kind_of(evidence: Evidence, computed: bool, busy: bool, apart: bool, table: ErrorTable) -> Kind | None:
    """Return the kind of a prediction; None where no run like it is known.

    ``computed`` tells that prompts are computed and not found in a prefix cache, ``busy`` that much of the work that
    clients can do arrives, ``apart`` that prefill and decode run on pools of their own.
    """
    notes = ["prompts computed"] if computed else []
    engine = evidence.engine
    if not any(group.startswith(f"{engine}/") for group in table.groups):
        engine = "vllm"
        notes.append(f"no run of engine {evidence.engine}")
    elif engine != "vllm":
        notes.append(f"engine {engine}")
    unlike = [each for each in evidence.special if each not in table.features.get(engine, ())]
    notes += [f"no run with {', '.join(unlike)}"] if unlike else []
    prompts = ("computed", "found") if computed else ("found", "computed")
    if apart:
        return _apart(evidence, engine, notes, prompts, table)
    classes = ("mixture" if evidence.mixture else "dense", "busy" if busy else "light")
    for text, group in _candidates(evidence, engine, prompts, table):
        intervals = table.intervals(group, classes)
        if intervals is not None:
            recorded = all(interval.recorded for interval in intervals.values())
            return Kind("; ".join([text, *notes, *([] if recorded else [_UNRECORDED])]), intervals)
    return None


def _apart(
    evidence: Evidence, engine: str, notes: list[str], prompts: tuple[str, str], table: ErrorTable
) -> Kind | None:
    """Return the kind of a prediction with prefill and decode on pools of their own."""
    places = [("prefill and decode apart", "apart")]
    if table.has_hardware(evidence):
        here = f"prefill and decode apart on {evidence.hardware}", f"apart/{engine}/{evidence.hardware}"
        places.insert(0, here)
        if table.has_model(evidence):
            places.insert(0, (f"{here[0]} with this model", f"{here[1]}/{evidence.model}"))
    for text, place in places:
        for each in prompts:
            intervals = table.intervals(f"{place}/{each}", ())
            if intervals is not None:
                return Kind("; ".join([text, *notes]), intervals)
    return None


def _candidates(
    evidence: Evidence, engine: str, prompts: tuple[str, str], table: ErrorTable
) -> Iterator[tuple[str, str]]:
    """Yield names of kinds and of groups, the nearest first."""
    machine, served = evidence.hardware, f"{engine}/{evidence.hardware}"
    known = table.has_hardware(evidence)
    if known and table.has_model(evidence):
        text = f"{machine} and this model measured"
        yield text, f"{served}/{evidence.model}/{prompts[0]}"
        yield text, f"{served}/same/{prompts[0]}"
    if known:
        yield f"{machine} measured, this model not", f"{served}/other/{prompts[0]}"
    changed = machine in table.hardware and not known
    if evidence.kernels_of == machine and not changed:
        for each in prompts:
            yield f"kernels of {machine} measured, serving on it not", f"{engine}/kernels/{each}"
    elif evidence.kernels_of is not None and not changed:
        for kind in ("sibling", "none"):  # no run of this engine may have a sibling's kernels
            for each in prompts:
                yield f"{machine} not measured, kernels of {evidence.kernels_of}", f"{engine}/{kind}/{each}"
    if evidence.maker is not None and evidence.maker not in table.makers:
        for each in prompts:
            yield f"{machine} not measured, nor other accelerators of {evidence.maker}", f"maker/{each}"
    text = f"{machine} with other figures, not measured" if changed else f"{machine} not measured"
    for each in prompts:
        yield text, f"{engine}/none/{each}"
