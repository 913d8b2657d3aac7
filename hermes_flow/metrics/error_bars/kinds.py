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
_ELSEWHERE = "this model measured on other hardware"
_NOT_FOUND = "no such run with prompts from a prefix cache"
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
            if not computed and group.endswith("/computed"):
                notes.append(_NOT_FOUND)
            if not all(interval.recorded for interval in intervals.values()):
                notes.append(_UNRECORDED)
            return Kind("; ".join([text, *notes]), intervals)
    return None


def _apart(
    evidence: Evidence, engine: str, notes: list[str], prompts: tuple[str, str], table: ErrorTable
) -> Kind | None:
    """Return the kind of a prediction with prefill and decode on pools of their own."""
    text = "prefill and decode apart"
    places = [(text, f"apart elsewhere/{engine}"), (text, "apart")]
    if table.knows_model(evidence):
        places.insert(0, (f"{text}; {_ELSEWHERE}", f"apart elsewhere/{engine}/{evidence.model}"))
    if table.has_hardware(evidence):
        here = f"{text} on {evidence.hardware}", f"apart/{engine}/{evidence.hardware}"
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
    model = "this model in too few runs" if table.has_model(evidence) else "this model not"
    for each in prompts if known else ():
        if table.has_model(evidence):
            text = f"{machine} and this model measured"
            yield text, f"{served}/{evidence.model}/{each}"
            yield text, f"{served}/same/{each}"
        yield f"{machine} measured, {model}", f"{served}/other/{each}"
    changed = machine in table.hardware and not known
    for text, kind in _not_measured(evidence, changed, table):
        for each in prompts:
            place = kind if kind == "maker" else f"{engine}/{kind}"
            if table.knows_model(evidence):
                yield f"{text}; {_ELSEWHERE}", f"{place}/{evidence.model}/{each}"
            yield text, f"{place}/{each}"


def _not_measured(evidence: Evidence, changed: bool, table: ErrorTable) -> Iterator[tuple[str, str]]:
    """Yield names of kinds of predictions for hardware without serving runs, in words and in the table.

    ``changed`` tells that known hardware has other figures here.
    """
    machine = evidence.hardware
    if evidence.kernels_of == machine and not changed:
        yield f"kernels of {machine} measured, serving on it not", "kernels"
    elif evidence.kernels_of is not None and not changed:
        for kind in ("sibling", "none"):  # no run of this engine may have a sibling's kernels
            yield f"{machine} not measured, kernels of {evidence.kernels_of}", kind
    if evidence.maker is not None and evidence.maker not in table.makers:
        yield f"{machine} not measured, nor other accelerators of {evidence.maker}", "maker"
    yield f"{machine} with other figures, not measured" if changed else f"{machine} not measured", "none"
