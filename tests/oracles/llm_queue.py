"""The waiting queue of the naive LLM client: in which order it offers the requests for admission."""

from __future__ import annotations

from oracles.llm_sequence import OraclePolicy, Sequence


class WaitingQueue:
    """Requests not running: those that never ran, and those preempted.

    | packing | order |
    |---|---|
    | fcfs | as they came; a preempted sequence goes to the head |
    | shortest_prompt | tokens of the present sequence not yet computed |
    | least_work_left | those, and the output tokens not yet generated |
    | priority | arrival + priority·age: the lower goes first |
    | earliest_deadline | arrival + deadline |
    | vllm_priority | priority, then arrival |

    A tie goes to the request that arrived first. Keys are of the present state, whenever the order is asked
    for; what the prefix cache may hold of a sequence does not count, what was copied to the host does.
    """

    def __init__(self, policy: OraclePolicy) -> None:
        assert policy.packing in (
            "fcfs",
            "shortest_prompt",
            "least_work_left",
            "priority",
            "earliest_deadline",
            "vllm_priority",
        )
        self.policy = policy
        self.members: list[Sequence] = []
        self.arrivals = 0

    def arrive(self, sequence: Sequence) -> None:
        sequence.place = self.arrivals
        self.arrivals += 1
        self.members.append(sequence)

    def put_back(self, sequence: Sequence) -> None:
        """Take back a preempted sequence."""
        self.members.insert(0, sequence)

    def remove(self, sequence: Sequence) -> None:
        self.members.remove(sequence)

    def in_order(self) -> list[Sequence]:
        """Return the members as they are to be admitted; a list of its own."""
        if self.policy.packing == "fcfs":
            return list(self.members)
        if self.policy.packing == "vllm_priority":
            return sorted(self.members, key=lambda one: (one.request.priority, one.arrival_ns, one.index))
        return sorted(self.members, key=lambda sequence: (self._key(sequence), sequence.place))

    def _key(self, sequence: Sequence) -> int:
        request = sequence.request
        uncomputed = sequence.length - sequence.computed
        if self.policy.packing == "shortest_prompt":
            return uncomputed
        if self.policy.packing == "least_work_left":
            return uncomputed + request.output - sequence.generated
        if self.policy.packing == "priority":
            return sequence.arrival_ns + request.priority * self.policy.age_ns
        return sequence.arrival_ns + request.deadline_ns
