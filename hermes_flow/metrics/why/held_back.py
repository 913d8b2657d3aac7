"""Finds the time in which a scheduler lets its requests wait because its settings say so.

The waits are ``scheduler_recv_interval`` of SGLang, and those of TensorRT-LLM: ``batch_wait_timeout_iters``,
``batch_wait_timeout_ms`` and ``attention_dp_config``. A prompt with a seat and memory waits for these settings while
steps without prompts run, and behind other prompts while steps with prompts run.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hermes_flow.program.pools import LLMClientSpec
from hermes_flow.program.units import PS_PER_NS
from hermes_flow.recording.recording import STEP_FIELDS, ClientRecord

Floats = NDArray[np.float64]

_START, _END, _PREFILL = (STEP_FIELDS.index(name) for name in ("start_ps", "end_ps", "prefill_tokens"))


def waiting_keys(spec: LLMClientSpec) -> list[str]:
    """Return the keys of a pool that let requests wait although there is room for them; empty where none is set."""
    keys = []
    if spec.sglang is not None and spec.sglang.receive_interval > 1:
        keys.append("scheduler_recv_interval")
    settings = spec.tensorrt_llm
    if settings is not None:
        waits = (settings.wait_steps and settings.wait_tokens, settings.wait_ps, settings.balance)
        names = ("batch_wait_timeout_iters", "batch_wait_timeout_ms", "attention_dp_config.enable_balance")
        keys += [name for name, wait in zip(names, waits, strict=True) if wait]
    return keys


def waits_between_steps(spec: LLMClientSpec) -> bool:
    """Return whether the client waits between its steps, so that answers wait as well."""
    return spec.tensorrt_llm is not None and bool(spec.tensorrt_llm.wait_ps)


class StepTimes:
    """The steps of one client over time: when any ran, and when one with prompts ran."""

    def __init__(self, record: ClientRecord) -> None:
        rows = record.segments
        assert rows is not None
        rows = rows[np.argsort(rows[:, _END], kind="stable")]
        lengths = (rows[:, _END] - rows[:, _START]) / float(PS_PER_NS)
        self._at_ns = np.maximum.accumulate(rows[:, [_START, _END]].ravel() / float(PS_PER_NS))
        self._busy = _passed(lengths)
        self._mixed = _passed(lengths * (rows[:, _PREFILL] > 0))

    def idle_ns(self, begin_ns: Floats, end_ns: Floats) -> Floats:
        """Return how long no step ran within each span."""
        return np.maximum(end_ns - begin_ns - self._between(self._busy, begin_ns, end_ns), 0.0)

    def without_prompts_ns(self, begin_ns: Floats, end_ns: Floats) -> Floats:
        """Return how long no step with prompts ran within each span."""
        return np.maximum(end_ns - begin_ns - self._between(self._mixed, begin_ns, end_ns), 0.0)

    def _between(self, passed: Floats, begin_ns: Floats, end_ns: Floats) -> Floats:
        if not len(self._at_ns):
            return np.zeros_like(begin_ns)
        return np.asarray(
            np.interp(end_ns, self._at_ns, passed) - np.interp(begin_ns, self._at_ns, passed), np.float64
        )


def _passed(lengths: Floats) -> Floats:
    """Return the time that has passed at the beginning and at the end of each step."""
    ends = np.cumsum(lengths)
    return np.column_stack((ends - lengths, ends)).ravel()
