"""Leaves out of a record what would have happened to requests after they were given up, and keeps what was done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from hermes_flow.program.ops import Op
from hermes_flow.program.units import Ints
from hermes_flow.recording.recording import OpRecord


def until_given_up(
    op: Op,
    record: OpRecord,
    given_up_ns: Mapping[int, int],
    cut: Callable[[int], tuple[int, int, int] | None],
) -> OpRecord:
    """Return the record of an op without the tokens and ends that come later than ``given_up_ns``.

    ``cut(request)`` tells what was done of a task that was taken back (see ``PoolTasks.cut``). A task that has an end
    and no such cut went on to its end all the same: its last step, its pass or its gang was planned already.
    """
    requests = np.array(list(given_up_ns), dtype=np.int64)
    until = np.array(list(given_up_ns.values()), dtype=np.int64)

    def known(column: Ints) -> Ints:
        column = column.copy()
        own = column[requests]
        column[requests] = np.where(own > until, -1, own)
        return column

    # An engine may have planned a step with a task before it heard that nobody waits for it: that step happens.
    start, finish = record.start_ns, known(record.finish_ns)
    over, prompt, answer = (np.full(len(start), -1, dtype=np.int64) for _ in range(3))
    for request in requests[(start[requests] >= 0) & (finish[requests] < 0)].tolist():
        done = cut(request)
        if done is None:  # it went on to its end, or nobody can tell
            over[request] = max(int(record.finish_ns[request]), int(given_up_ns[request]))
            to_its_end = record.finish_ns[request] >= 0
            prompt[request], answer[request] = _whole(op, request) if to_its_end else (0, 0)
        else:
            prompt[request], answer[request], over[request] = done
    return replace(
        record,
        finish_ns=finish,
        first_ns=None
        if record.first_ns is None
        else np.where(answer == 0, known(record.first_ns), record.first_ns),
        cut_ns=over,
        cut_prompt=prompt,
        cut_answer=answer,
    )


def _whole(op: Op, request: int) -> tuple[int, int]:
    """Return the tokens of prompt and answer of a whole task; none where no LLM client serves it."""
    prompt = 0 if op.llm is None else int(op.llm.prompt[request])
    return prompt, 0 if op.generate is None else int(op.generate.output[request])
