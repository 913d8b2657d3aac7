"""The seats that vLLM's server takes by the GPU where nobody sets them, and a warning where the default here binds.

The default of ``engine=vllm`` is the same on every hardware. On a large GPU the real server has more seats, which
matters only where all seats are taken while KV memory is free.
"""

from __future__ import annotations

from collections.abc import Sequence

from hermes_flow.config.server_limits import LARGE_GPU_SEATS, is_large_gpu
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord

# A few steps with all seats taken change little.
_SHARE_OF_TIME = 0.01
_FULL = 0.98
_START, _END, _DECODES = (STEP_FIELDS.index(name) for name in ("start_ps", "end_ps", "decodes"))


def server_seats(pool: LLMPool) -> int:
    """Return the seats that vLLM's server takes on the pool's hardware, where they are more than the default here.

    0 where the pool's seats were set, and where the server takes no more.
    """
    hardware = pool.hardware
    large = is_large_gpu(hardware.name, hardware.kind, hardware.usable_gb or hardware.memory_gb)
    default = pool.engine.name == "vllm" and "max_num_seqs" in pool.from_engine and pool.data_parallel == 1
    return LARGE_GPU_SEATS if large and default and pool.max_num_seqs < LARGE_GPU_SEATS else 0


def seat_warnings(
    name: str, hardware: str | None, client: LLMClientSpec, records: Sequence[ClientRecord]
) -> list[str]:
    """Return a warning if all default seats of the pool were taken while KV was free, and its server has more."""
    if not client.server_seats:
        return []
    full_ps = busy_ps = 0
    for record in records:
        rows = record.segments
        if rows is None:
            continue
        lengths = rows[:, _END] - rows[:, _START]
        busy_ps += int(lengths.sum())
        full_ps += int(lengths[rows[:, _DECODES] >= client.max_num_seqs].sum())
    peak = max((record.kv_peak_blocks or 0 for record in records), default=0) / client.kv_blocks
    if not busy_ps or full_ps / busy_ps < _SHARE_OF_TIME or peak > _FULL:
        return []
    return [
        f"cluster.pools.{name}.max_num_seqs: all {client.max_num_seqs:,} seats of the default were taken for "
        f"{full_ps / busy_ps:.0%} of the pool's busy time, while at most {peak:.0%} of its KV was in use; vLLM's own "
        f"server takes {client.server_seats:,} on {hardware}, so set what your server has, or "
        "engine.server_limits=by_gpu for its defaults"
    ]
