"""Marks pools whose step times depend on constants that the user changed, for the name of their error bar."""

from __future__ import annotations

import re
from dataclasses import replace

from hermes_flow.config.given_keys import Given
from hermes_flow.program.program import Program

OWN_CONSTANTS = "constants of your own"

# Figures of a hardware that set the times of steps, beside those of the datasheet by which it is known again.
_FIGURES = re.compile(r"hardware\.(engine|efficiency|torus|peak_tops_\w+|peak_tflops_fp[43]\w*)(\.|$)")
_OVERHEADS = re.compile(r"engine\.overheads(\.|$)")


def with_own_constants(program: Program, given: Given) -> Program:
    """Return the program with a note on every pool whose step times have constants that ``given`` changes."""
    groups = {"hardware": _FIGURES, "engine": _OVERHEADS}
    changed: set[str] = set()
    for group, pattern in groups.items():
        if any(pattern.match(key) for key in given.keys):
            changed.update(given.pools(group, own=False))
    for key in given.keys:
        cluster, _, rest = key.partition("pools.")
        name, _, own = rest.partition(".")
        if cluster == "cluster." and any(pattern.match(own) for pattern in groups.values()):
            changed.add(name)
    if not changed:
        return program
    pools = [
        replace(pool, evidence=replace(pool.evidence, special=(*pool.evidence.special, OWN_CONSTANTS)))
        if pool.evidence is not None and pool.name in changed
        else pool
        for pool in program.pools
    ]
    return replace(program, pools=tuple(pools))
