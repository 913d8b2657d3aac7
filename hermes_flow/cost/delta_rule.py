"""The cost of the delta rule: scans over prompts whose heads work side by side, and states that decodes read."""

from __future__ import annotations

import math

from hermes_flow.config.hardware_measurements import DeltaRuleFit
from hermes_flow.config.mixer_shape import DeltaScan
from hermes_flow.program.scan_cost import ScanCost
from hermes_flow.program.units import PS_PER_US

CHUNK_TOKENS = 64  # of the fit


def scan_costs(fit: DeltaRuleFit, layers: tuple[DeltaScan, ...]) -> tuple[ScanCost, ...]:
    """Return the scans of each kind of ``layers`` over the prompts of a step.

    One head of one prompt runs on one multiprocessor. Heads of other widths than those measured take the time of
    their operations.
    """
    found = []
    for each in layers:
        chain_ps = each.layers * each.size * fit.chunk_us / CHUNK_TOKENS * PS_PER_US
        work_ps = chain_ps * each.heads / fit.heads_at_once
        found.append(ScanCost(round(chain_ps), round(work_ps), round(fit.extra_tokens)))
    return tuple(found)


def state_s(fit: DeltaRuleFit, layers: tuple[DeltaScan, ...], bandwidth: float) -> float:
    """Return the seconds in which a decoding sequence reads and writes its states."""
    return math.fsum(2.0 * each.layers * each.state_bytes for each in layers) / (bandwidth * fit.state_memory)


def convolution_s(fit: DeltaRuleFit, layers: tuple[DeltaScan, ...], bandwidth: float) -> float:
    """Return the seconds of a token in the convolutions, which read and write each channel in bf16."""
    return math.fsum(4.0 * each.layers * each.channels for each in layers) / (
        bandwidth * fit.convolution_memory
    )
