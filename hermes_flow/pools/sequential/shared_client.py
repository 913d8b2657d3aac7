"""A host that takes turns with others on one device: its tasks wait until the device is theirs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ClassVar

from hermes_flow.pools.client import PoolClient
from hermes_flow.pools.sequential.client import SequentialTasks
from hermes_flow.pools.shared_device import SharedDevice
from hermes_flow.program.units import NEVER


class SharedDeviceClient(PoolClient):
    """One server whose tasks go through the queue of a device that other clients use, too."""

    fixed: ClassVar[bool] = True
    cores: ClassVar[int] = 1

    def __init__(self, index: int, tasks: SequentialTasks, done: Callable[[int, int], None]) -> None:
        self.index = index
        self.busy_ns = 0
        self.served = 0
        self._tasks = tasks
        self._done = done
        self._device = SharedDevice()
        self._left: deque[int] = deque()  # core time of the tasks that wait
        self._running = -1
        self._abandoned = False  # the running task was taken back
        self._finish_ns = NEVER
        self._ended_ns = -1
        self._ended = 0  # tasks that ended at _ended_ns, which are finished only after that instant
        self._changed: Callable[[], None] = lambda: None

    @property
    def deliveries(self) -> SharedDeviceClient:
        """The client itself: it delivers tasks when they finish; the device decides when they begin."""
        return self

    def on_change(self, deliveries: Callable[[], None], plans: Callable[[], None]) -> None:
        """Set the callback for the beginning of a task, whose end is then known."""
        self._changed = deliveries

    def take_turns(self, device: SharedDevice) -> None:
        """Use a device together with other clients."""
        self._device = device

    def submit(self, task: int, now_ns: int) -> int:
        """Queue a task that is ready now; return when the running task ends."""
        self.served += 1
        self._left.append(self._tasks.service_ns[task])
        self._device.claim(self, task, now_ns)
        return self._finish_ns

    def withdraw(self, task: int, now_ns: int) -> int:
        """Take back a task: one that waits leaves the queue, one that runs goes on to its end."""
        if self._running == task:
            self._abandoned = True
        elif self._device.withdraw(self, task):
            self._left.remove(self._tasks.service_ns[task])
        return self._finish_ns

    def begin(self, task: int, now_ns: int) -> int:
        """Begin a task that the device is free for; return when it ends."""
        service = self._left.popleft()
        self._running = task
        self._finish_ns = now_ns + service
        self._tasks.start_ns[task] = now_ns
        self._tasks.finish_ns[task] = self._finish_ns
        self.busy_ns += service
        self._changed()
        return self._finish_ns

    def next_ns(self) -> int:
        """Return when the running task ends."""
        return self._finish_ns

    def fire(self, now_ns: int) -> int:
        """Deliver the task that ends now, and leave the device to whoever is next."""
        task, self._running, self._finish_ns = self._running, -1, NEVER
        abandoned, self._abandoned = self._abandoned, False
        if now_ns > self._ended_ns:
            self._ended_ns, self._ended = now_ns, 0
        if not abandoned:
            self._ended += 1
            self._done(task, now_ns)
        self._device.released(now_ns)
        return self._finish_ns

    def settle(self, now_ns: int) -> None:
        """Nothing happens between the ends of tasks."""

    def outstanding(self, now_ns: int) -> int:
        """Number of tasks submitted and not finished before ``now_ns``."""
        ended = self._ended if self._ended_ns == now_ns else 0
        return len(self._left) + (self._running >= 0 and not self._abandoned) + ended

    def queued_tokens(self, now_ns: int) -> int:
        """The remaining work in nanoseconds of the device, of its own tasks."""
        running = self._finish_ns - now_ns if self._running >= 0 else 0
        return sum(self._left) + running
