"""The keys of TensorRT-LLM's attention_dp_config: how ranks of attention wait for each other's prompts."""

from __future__ import annotations

from hermes_flow.config.quantities import CountOrZero
from hermes_flow.program.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class AttentionDpConfig:
    """Whether prompts wait until every rank of TensorRT-LLM has one, and for how many steps at most."""

    enable_balance: bool = False
    """True lets prompts wait beside decodes until every rank has one."""
    timeout_iters: CountOrZero = 50
    """After so many steps in which not every rank could run a prompt, those that are there run."""
    batching_wait_iters: CountOrZero = 10
    """For how many steps prompts wait for more where every rank has one, before they run."""
