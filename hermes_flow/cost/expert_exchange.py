"""The exchange of tokens between ranks and the devices of their experts, by gathering all tokens or sending each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hermes_flow.config.schema import Experts, Precision
from hermes_flow.config.shape import BYTES
from hermes_flow.cost.across_nodes import EXCHANGE_US
from hermes_flow.cost.expert_groups import devices_reached, limited
from hermes_flow.cost.operators import Floats
from hermes_flow.errors import ConfigError
from hermes_flow.program.same_bits import whole_power

if TYPE_CHECKING:
    from hermes_flow.cost.roofline_tables import RooflineTables


def gathered_s(tables: RooflineTables, tokens: Floats) -> Floats:
    """Return the seconds of one layer's all-gather of hidden states and reduce-scatter of sums.

    ``tokens`` are those of all ranks. Both are in bf16, but nvfp4 is gathered after the cast. source: TensorRT-LLM
    gathers after quantization with nvfp4 and before it with fp8 in blocks (fused_moe_cutlass.py), SGLang likewise
    (dp_attention.py, and should_use_flashinfer_cutlass_moe_fp4_allgather). Raises ConfigError where the devices fill
    several nodes.
    """
    _check_one_node(tables)
    values, group = tokens * tables.model.hidden_size, tables.deployment.expert_group
    before: Precision = "nvfp4" if tables.compute == "nvfp4" else "bf16"
    gathered = tables.operators.gather(values * BYTES[before], group)
    return gathered + tables.operators.gather(values * BYTES["bf16"], group)


def sent_s(tables: RooflineTables, experts: Experts, tokens: Floats) -> Floats:
    """Return the seconds of one layer's dispatch to the experts' devices, and of the way back in bf16.

    ``tokens`` are those of one rank. Within a node a device gets a token once, however many of its experts the token
    chooses: so do DeepEP's kernels for many tokens (``is_token_in_rank``). Its kernels for few tokens, to which
    exchanges over several nodes are fitted, send a copy to each expert. The devices of a rank, which all hold its
    tokens, send an equal share of them each.
    """
    group, chosen = tables.deployment.expert_group, experts.per_token
    nodes = tables.deployment.across(group)
    if nodes is not None:
        places = float(chosen)
    elif limited(experts) and not tables.deployment.redundant_experts:
        places = devices_reached(experts, group)
    else:
        places = group * (1.0 - whole_power(1.0 - 1.0 / group, chosen))
    copies = tokens / tables.tensor_parallel * places * tables.model.hidden_size
    dispatch = tables.operators.all_to_all(copies * BYTES[tables.compute], group, nodes)
    return dispatch + tables.operators.all_to_all(copies * BYTES["bf16"], group, nodes)


def exchange_notes(tables: RooflineTables) -> list[str]:
    """Return how ranks exchange tokens, and where its time comes from; raises ConfigError as ``gathered_s`` does."""
    if not tables.experts_apart:
        return []
    operators, group = tables.operators, tables.deployment.expert_group
    if tables.deployment.gathers:
        _check_one_node(tables)
        whole = operators.fit("gather", operators.efficiency.gather, group)
        return [
            "exchange between experts: all-gather and reduce-scatter of all ranks' tokens, each "
            f"{whole.alpha_us:g} µs and {whole.fraction:g} of scale_up_gb_s, as measured"
        ]
    nodes = tables.deployment.across(group)
    if nodes is not None:
        return [
            f"exchange between experts on {-(-group // nodes.devices)} nodes: {EXCHANGE_US:g} µs and "
            f"{nodes.rate():g} GB/s a device to other nodes, as fitted to DeepEP's published times"
        ]
    like, fit = operators.exchange_fit(group)
    return [
        f"exchange between experts: {fit.fraction:g} of scale_up_gb_s and {fit.alpha_us:g} µs, as fitted to "
        f"an all-reduce of {like}"
    ]


def _check_one_node(tables: RooflineTables) -> None:
    group = tables.deployment.expert_group
    if tables.deployment.across(group) is not None:
        raise ConfigError(
            f"{tables.deployment.key}.all2all_backend",
            f"allgather_reducescatter, but the {group} devices fill several nodes, over which gathering is not "
            "modelled; expected alltoall or null",
        )
