"""The interface of a pool's tasks to the machine that runs them, to routing, and to the clients of other pools.

It has no metaclass, although it has an abstract method; see ``pools/client.py``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Sequence

from mypy_extensions import mypyc_attr

from hermes_flow.pools.progress import Progress
from hermes_flow.program.units import Ints
from hermes_flow.program.work import Work
from hermes_flow.recording.recording import OpRecord


@mypyc_attr(allow_interpreted_subclasses=True)
class PoolTasks:
    """The tasks of one pool as columns, shared by its clients. A task's number is op offset + request."""

    __slots__ = ()

    @abstractmethod
    def record(self, first: int, count: int, client: Ints, ready_ns: Ints) -> OpRecord:
        """Return the results of tasks ``first`` … ``first + count − 1``, which belong to one op.

        ``client`` and ``ready_ns`` are columns of the record that the coordinator knows.
        """
        raise NotImplementedError(f"{type(self).__name__} records nothing")

    # What routing may know of a task.

    def input_tokens(self, task: int) -> int:
        """Return the tokens of its prompt; 0 where it has none."""
        return 0

    def output_tokens(self, task: int) -> int:
        """Return the tokens of its answer; 0 where it has none."""
        return 0

    def prefix_keys(self, task: int) -> Sequence[Hashable]:
        """Return a key for each of the prompt's first full blocks that other prompts may contain."""
        return ()

    def cut(self, task: int) -> tuple[int, int, int] | None:
        """Return what was done of a task that was taken back: prompt and answer tokens, and the ns it was over.

        None for one of which nothing was done, or of which that is known from its times.
        """
        return None

    # What moves between clients of several pools. Only the kinds that the compiler lets take part have these.

    def context_tokens(self, task: int) -> int:
        """Return the tokens of the context that a retrieval has loaded."""
        raise TypeError(f"{type(self).__name__} retrieves no context")

    def context_bytes(self, task: int) -> int:
        """Return the bytes of the context that a retrieval has loaded."""
        raise TypeError(f"{type(self).__name__} retrieves no context")

    def count_waited(self) -> None:
        """Prepare for ``nobody_waits``; all tasks are waited for until then."""

    def nobody_waits(self, task: int) -> None:
        """Note that the end of a task need not be reported; it has not been submitted."""

    def context_sizes(self) -> list[int] | None:
        """Return the bytes of the contexts that were loaded by task, filled as they are; None: ask for each."""
        return None

    def begin_with(self, task: int, tokens: int) -> None:
        """Let a prompt begin with ``tokens`` computed tokens; its last token is computed in any case."""
        raise TypeError(f"{type(self).__name__} begins with no context")

    def first_token_ps(self, task: int) -> int:
        """Return when a task has emitted its first token."""
        raise TypeError(f"{type(self).__name__} hands no KV over")

    def reset(self, task: int) -> None:
        """Forget what a client has done for a task that is lost with it, and that begins anew."""
        raise TypeError(f"tasks of {type(self).__name__} never begin anew")

    def renew(self, first: int, work: Work) -> None:
        """Let other requests take the numbers from ``first`` on, with their ``work``; the old tasks are over."""
        raise TypeError(f"tasks of {type(self).__name__} keep their requests")

    def answered(self, task: int) -> int:
        """Return the tokens of its answer with which a task goes on that was lost."""
        return 0

    def go_on(self, task: int, answer: int) -> None:
        """Let a task that is lost with its client go on elsewhere from the first ``answer`` tokens of its answer."""
        raise TypeError(f"tasks of {type(self).__name__} never go on elsewhere")

    def carry_over(self, task: int, tokens: int) -> None:
        """Note that the KV of the first ``tokens`` of a task that goes on elsewhere is there."""
        raise TypeError(f"tasks of {type(self).__name__} have no KV")

    def spent(self, task: int, done: Progress, now_ns: int) -> tuple[int, int, int]:
        """Return what was spent by ``now_ns`` on a task that begins anew: tokens of prompt and answer, ns of service.

        ``done`` is how far it was, where its client has failed with it.
        """
        raise TypeError(f"tasks of {type(self).__name__} never begin anew")

    def cut_short(self, task: int, done: Progress, now_ns: int) -> None:
        """Note how far a task was that fails with its client at ``now_ns``; see ``cut``."""

    def answer_ns(self, task: int) -> tuple[int, int]:
        """Return when an answer that is complete got its first and its last token."""
        raise TypeError(f"{type(self).__name__} writes no answers")

    def take_over(self, task: int, first_token_ps: int) -> None:
        """Let a task continue from the KV of its prompt, which another client has computed and sent."""
        raise TypeError(f"{type(self).__name__} takes no KV over")
