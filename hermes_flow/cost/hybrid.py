"""The cost model ``hybrid``: the roofline, corrected by measurements of other models on the same hardware."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hermes_flow.config.quantities import Factor, Microseconds, Milliseconds
from hermes_flow.config.schema import Efficiency
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.cost.roofline import Roofline
from hermes_flow.errors import ConfigError
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import ms_to_ns


@cost_models.register("hybrid")
@dataclass(frozen=True, slots=True)
class Hybrid:
    """Corrections of the roofline on ``measured_on``, as ``hermes-flow calibrate`` writes them (docs/calibration.md).

    A step's token work takes ``token_work`` times the roofline's, and at least ``host_layer_us`` a layer; attention
    takes ``decode_attention`` and ``prefill_attention`` times as long. ``prefill_layer_us`` a layer come on top where
    a step has prompts, ``sequence_us`` for each of its sequences. What the hardware's ``engine`` has for that is not
    used, but for ``ingest_ms`` where it is null here. Other hardware and encoders take the plain roofline, with
    ``unmeasured`` where that has no efficiencies.
    """

    unmeasured: Efficiency
    measured_on: str
    host_layer_us: Microseconds
    token_work: Factor
    prefill_layer_us: Microseconds
    sequence_us: Microseconds
    decode_attention: Factor
    prefill_attention: Factor
    ingest_ms: Milliseconds | None = None
    source: str = ""
    """Where the figures come from."""

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the corrected step tables; raises ConfigError for figures that are missing or make no sense."""
        from hermes_flow.cost.fitted.correction import Corrections, corrected, without_engine

        roofline = Roofline(self.unmeasured)
        if deployment.part == "encoder" or deployment.hardware.name != self.measured_on:
            plain = roofline.lower(deployment)
            why = "encoders" if deployment.part == "encoder" else deployment.hardware.name
            note = f"plain roofline: the corrections were measured on {self.measured_on}, and not of {why}"
            return replace(plain, provenance=(note, *plain.provenance))
        self._check(deployment)
        values = {name: self._figure(name, positive=name in _FACTORS) for name in (*_FACTORS, *_MICROSECONDS)}
        bare = replace(deployment, hardware=without_engine(deployment.hardware))
        kernels = roofline.lower(bare)
        cost = corrected(kernels, Corrections(**values), deployment.model.layers)
        ingest_ns = kernels.ingest_ns if self.ingest_ms is None else ms_to_ns(self._figure("ingest_ms"))
        return replace(cost, ingest_ns=ingest_ns, provenance=self._provenance(kernels))

    def hop(self, deployment: Deployment) -> Hop:
        """Return the roofline's hop."""
        return Roofline(self.unmeasured).hop(deployment)

    def _figure(self, name: str, *, positive: bool = False) -> float:
        value: float = getattr(self, name)
        if not 0.0 <= value < float("inf") or (positive and value == 0.0):
            raise ConfigError(f"cost.{name}", f"{value:g}; expected a number {'> 0' if positive else '≥ 0'}")
        return value

    def _check(self, deployment: Deployment) -> None:
        """Refuse what none of the corrections was ever fitted to, by the key that asks for it."""
        for name in deployment.beyond_tensors():
            raise ConfigError(
                f"{deployment.key}.{name}", "cost=hybrid has no corrections for it; use cost=roofline"
            )

    def _provenance(self, kernels: StepCost) -> tuple[str, ...]:
        return (
            f"hybrid: {self.source or 'corrections of unknown origin'}",
            f"token work × {self.token_work:.3g}, at least {self.host_layer_us:,.4g} µs a layer; decode attention × "
            f"{self.decode_attention:.3g}, prefill attention × {self.prefill_attention:.3g}; "
            f"{self.sequence_us:,.4g} µs a sequence, {self.prefill_layer_us:,.4g} µs a layer in steps with prompts",
            *(note for note in kernels.provenance if not note.startswith("engine: ")),
        )


_FACTORS = ("token_work", "decode_attention", "prefill_attention")
_MICROSECONDS = ("host_layer_us", "prefill_layer_us", "sequence_us")
