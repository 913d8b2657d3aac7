"""These objects of a plain client stay the same from one call of its loop to the next."""

from __future__ import annotations

from collections import deque

from hermes_flow.pools.llm.batch import RunningBatch
from hermes_flow.pools.llm.cached_batch import CachingBatch
from hermes_flow.pools.llm.prefix_cache import BlockStore
from hermes_flow.pools.llm.tasks import LLMTasks
from hermes_flow.pools.llm.waiting import ArrivalQueue
from hermes_flow.program.step_cost import StepCost

Queues = tuple[deque[tuple[int, int]], ArrivalQueue, deque[tuple[int, list[int]]], bytearray]
Limits = tuple[int, int, int, int]
# Unpacking one tuple takes half the time of looking up what it has.
PlainConstants = tuple[
    Queues,
    Limits,
    tuple[int, list[int], int, list[int]],
    tuple[list[int], int, list[int], list[int], list[int]],
    tuple[float, float, int, int],
    tuple[list[int], list[int], list[int]],
    tuple[list[int], list[int], dict[int, int], dict[int, int]],
    BlockStore | None,
]


def plain_constants(
    queues: Queues, limits: Limits, cost: StepCost, tasks: LLMTasks, batch: RunningBatch
) -> PlainConstants:
    """Return the objects in the order in which the loop unpacks them.

    ``queues`` are the tasks that arrive, those that wait, the ends in flight and the log of steps; ``limits`` are the
    look-ahead, the tokens and the seats of a step, and the size of a block.
    """
    return (
        queues,
        limits,
        (cost.prefill_launch_ps, cost.mixed_attention_ps, cost.mixed_context_ps, cost.first_chunk_ps),
        (cost.decode_attention_ps, cost.context_ps, cost.decode_ps, cost.tokens_ps, cost.sequences_ps),
        (cost.prefill_pair_ps, cost.prefill_half_length, cost.prefill_context_ps, cost.prefill_token_ps),
        (tasks.prompt, tasks.output, tasks.generated),
        (batch._boundaries, batch._ends, batch.running, batch.prefilling),
        # Its content is not in the numbers of the loop: what it holds is changed by its own methods.
        batch._store if isinstance(batch, CachingBatch) else None,
    )
