"""Returns the phases of a workload whose arrivals are given in stages."""

from __future__ import annotations

from hermes_flow.config.schema import Config
from hermes_flow.program.phases import Phase
from hermes_flow.program.units import NS_PER_S
from hermes_flow.workload.arrivals import parse_arrivals
from hermes_flow.workload.arrivals.stages import Stages


def phases_of(config: Config) -> tuple[Phase, ...]:
    """Return a phase for each stage of the arrivals; none where they have fewer than two."""
    workload = config.workload
    given = getattr(workload, "arrivals", None)
    if given is None:
        return ()
    process = parse_arrivals(given, "workload.arrivals")
    if not isinstance(process, Stages) or len(process.stages) < 2:
        return ()
    phases: list[Phase] = []
    begin_ns = 0
    for stage in process.stages:
        end_ns = begin_ns + round(stage.duration_s * NS_PER_S)
        phases.append(Phase(begin_ns, end_ns, stage.rate_per_s * workload.rate_scale))
        begin_ns = end_ns
    return tuple(phases)
