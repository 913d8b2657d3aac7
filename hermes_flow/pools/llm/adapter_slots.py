"""The adapters on the GPUs of one client, and in its host memory: which have a place, and which is thrown out."""

from __future__ import annotations

from hermes_flow.program.pools import AdapterSpec


class AdapterSlots:
    """The places of adapters, -1 being the model without one, which needs none.

    An adapter is in use from the admission of a sequence that asks for it until its last such sequence has its last
    token planned, is preempted or is taken back. Those in use keep their places. Where a place is needed, the adapter
    that has been idle the longest gives its own; the same holds in host memory, where ``host_slots`` is not None.

    ``loads`` and ``reads`` count what was copied from host memory and read from disk, ``load_ps`` is their time.
    """

    __slots__ = ("_host", "_idle", "_spec", "found", "load_ps", "loads", "reads", "users")

    def __init__(self, spec: AdapterSpec) -> None:
        self._spec = spec
        self.users: dict[int, int] = {}  # adapter in use → its sequences
        self._idle: dict[int, None] = {}  # on the GPUs, the one that has been idle the longest first
        self._host: dict[int, None] = {}  # in host memory and not in use, in the same order
        self.loads = 0
        self.reads = 0
        self.found = 0  # admissions that found their adapter on the GPUs
        self.load_ps = 0

    def fits(self, adapter: int) -> bool:
        """Return whether a sequence may be admitted: its adapter is in use, or a place is not in use."""
        return adapter < 0 or adapter in self.users or len(self.users) < self._spec.slots

    def take(self, adapter: int) -> int:
        """Note that a sequence was admitted; return the picoseconds that loading its adapter takes."""
        if adapter < 0:
            return 0
        users = self.users.get(adapter, 0)
        self.users[adapter] = users + 1
        if users:
            self.found += 1
            return 0
        duration = self._from_host(adapter)
        if adapter in self._idle:
            del self._idle[adapter]
            self.found += 1
            return 0
        if len(self.users) + len(self._idle) > self._spec.slots:
            del self._idle[next(iter(self._idle))]
        self.loads += 1
        smaller = self._spec.smaller.get(adapter)
        duration += self._spec.load_ps if smaller is None else smaller[0]
        self.load_ps += duration
        return duration

    def give_back(self, adapter: int) -> None:
        """Note that a sequence takes part in no further step."""
        if adapter < 0:
            return
        users = self.users[adapter] - 1
        if users:
            self.users[adapter] = users
            return
        del self.users[adapter]
        self._idle[adapter] = None
        if self._spec.host_slots is not None:
            self._host[adapter] = None

    def extra_ps(self, tokens: int) -> int:
        """Return what the adapters in use add to a step of so many tokens."""
        used = len(self.users)
        if not used or not tokens:
            return 0
        return self._spec.tokens_ps[tokens] + self._spec.each_ps * (used - 1)

    def _from_host(self, adapter: int) -> int:
        """Return the time to read an adapter that comes into use, where it is not in host memory."""
        if self._spec.host_slots is None:
            return 0
        if adapter in self._host:
            del self._host[adapter]
            return 0
        if len(self.users) + len(self._host) > self._spec.host_slots:
            del self._host[next(iter(self._host))]
        self.reads += 1
        smaller = self._spec.smaller.get(adapter)
        return self._spec.read_ps if smaller is None else smaller[1]
