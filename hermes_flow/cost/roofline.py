"""The cost model ``roofline``: per operator max(compute, memory) + launch, with efficiencies per hardware.

Forms and constants: see the hardware's ``efficiency`` (fitted to measured operator tables) and ``engine``
(what the serving engine adds). A step is the sum of its operators:

- token-wise: every weight matrix of every layer over all scheduled tokens, the all-reduces of tensor
  parallelism, the exchange between experts, and the engine's time per layer and step;
- per sequence: the output head, the sampler, and the engine's time per scheduled sequence;
- decode attention, affine in the context; prefill attention, per query-key pair.

Norms, activations and writing the KV are part of the engine's time per layer or step. Where the engine has a rate for
them, they take longer in steps of many tokens (hermes_flow/cost/elementwise.py).
"""

from __future__ import annotations

from dataclasses import replace

from hermes_flow.config.schema import Drafting, Efficiency, Model
from hermes_flow.config.shape import BYTES
from hermes_flow.cost.across_nodes import NETWORK_HOP_US, TREE_US, NodeLinks
from hermes_flow.cost.draft_model import with_draft
from hermes_flow.cost.engine_kernels import attends_as, with_engine_kernels
from hermes_flow.cost.model import Deployment, Hop, cost_models
from hermes_flow.cost.operators import Operators
from hermes_flow.cost.precision import computes_in_fp32, in_fp32, precision_notes
from hermes_flow.cost.roofline_tables import RooflineTables
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.program.step_cost import StepCost
from hermes_flow.program.units import PS_PER_S, S_PER_US, gb_to_bytes


@cost_models.register("roofline")
@dataclass(frozen=True, slots=True)
class Roofline:
    """The roofline; ``unmeasured`` replaces missing efficiencies of the hardware's catalog entry."""

    unmeasured: Efficiency

    def lower(self, deployment: Deployment) -> StepCost:
        """Return the step tables of this deployment; raises ConfigError where a figure is missing."""
        if deployment.part == "encoder" and computes_in_fp32(deployment.hardware):
            return self._lower_in_fp32(deployment)
        cost = RooflineTables(deployment, self.unmeasured).step_cost()
        draft = deployment.speculative.draft
        if draft is not None and deployment.part == "last":
            cost = self._with_draft(cost, draft, deployment)
        return cost.in_lockstep(deployment.data_parallel)

    def _lower_in_fp32(self, deployment: Deployment) -> StepCost:
        model, hardware = in_fp32(deployment.model, deployment.hardware)
        cost = RooflineTables(
            replace(deployment, model=model, hardware=hardware), self.unmeasured
        ).step_cost()
        note = f"{hardware.name} has no bf16 peak: fp32, with weights and activations of 4 bytes"
        return replace(cost, provenance=(*cost.provenance, note))

    def _with_draft(self, cost: StepCost, draft: Model, deployment: Deployment) -> StepCost:
        """Return the cost with the draft model's, which runs on the tensor-parallel devices of each rank."""
        alone = Deployment(
            key=deployment.key,
            model=draft,
            hardware=deployment.hardware,
            tensor_parallel=deployment.tensor_parallel,
            max_tokens=deployment.max_tokens,
            max_sequences=deployment.max_sequences,
            expert_parallel=deployment.expert_parallel and draft.experts is not None,
            nodes=deployment.nodes,
            part="draft",
        )
        tokens = deployment.speculative.tokens
        host = None if deployment.hardware.engine is None else deployment.hardware.engine.drafting
        both = with_draft(cost, RooflineTables(alone, self.unmeasured).step_cost(), tokens, host)
        of_hardware = deployment.hardware.efficiency or self.unmeasured
        efficiency = with_engine_kernels(of_hardware, deployment.hardware, attends_as(draft))
        narrow = precision_notes(draft.precision, deployment.hardware, efficiency)
        notes = (
            f"draft: {tokens} passes a step on the same devices, {_host_words(host)}",
            *(f"draft {note}" for note in narrow),
        )
        return replace(both, provenance=cost.provenance + notes)

    def hop(self, deployment: Deployment) -> Hop:
        """Return the time to send the hidden state on: its bytes at the line rate of the scale-up link.

        The latency is that of a measured all-reduce of two, where there is one. Where the ranks fill several nodes,
        every hop goes from node to node, with the latency of one hop of NCCL's tree.
        """
        size = deployment.model.hidden_size * BYTES["bf16"]
        nodes = deployment.across(deployment.devices)
        if nodes is not None:
            return _hop_between_nodes(size, nodes, f"{deployment.key}.hardware")
        hardware = deployment.hardware
        operators = Operators(hardware, self.unmeasured, f"{deployment.key}.hardware")
        link = operators.link("pipeline parallelism")
        pair = operators.efficiency.all_reduce.get(2) if operators.measured else None
        latency_us = 0.0 if pair is None else pair.alpha_us
        why = "none measured" if pair is None else "as an all-reduce of two"
        return Hop(
            ps_per_token=size / gb_to_bytes(link) * PS_PER_S,
            ps=round(latency_us * S_PER_US * PS_PER_S),
            provenance=(
                f"hop between pipeline ranks: {size:,.0f} bytes a token at scale_up_gb_s, {latency_us:g} µs of "
                f"latency ({why})",
            ),
        )


def _hop_between_nodes(size: float, nodes: NodeLinks, key: str) -> Hop:
    nodes.check(key, "pipeline parallelism")
    latency_us = TREE_US + NETWORK_HOP_US + nodes.latency_us
    return Hop(
        ps_per_token=size / gb_to_bytes(nodes.rate()) * PS_PER_S,
        ps=round(latency_us * S_PER_US * PS_PER_S),
        provenance=(
            f"hop between pipeline ranks: {size:,.0f} bytes a token at {nodes.rate():g} GB/s to another node, "
            f"{latency_us:g} µs of latency (NCCL's)",
        ),
    )


def _host_words(host: Drafting | None) -> str:
    if host is None:
        return "without overheads of the engine"
    return f"each at least {host.pass_us:g} µs for its launches, and {host.step_us:g} µs a step around them"
