"""The keys of ``autoscale``: the limits of a fleet, its start-up and its pace. Other keys are those of the policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from hermes_flow.config.convert import child, convert, shown
from hermes_flow.config.quantities import Count, CountOrZero, GBPerSecond, Interval, Seconds
from hermes_flow.errors import ConfigError
from hermes_flow.program.fleet import ScalingPolicy
from hermes_flow.scaling.policy import scaling_policies


@dataclass(frozen=True, slots=True)
class ScalingLimits:
    """The keys of ``autoscale`` besides those of its policy.

    The run begins with ``count`` clients, or ``min`` if that is more. A client takes tasks ``startup_s`` after it
    was started; it is paid for from its start until it has stopped.
    """

    max: Count
    """The most clients at a time, counting those that start or drain."""
    min: CountOrZero = 1
    """The fewest clients; 0 lets the pool stop all of them, and the next task starts one."""
    # source: defaults of Kubernetes (horizontal-pod-autoscaler-sync-period; stabilizationWindowSeconds of scaleDown)
    interval_s: Interval = 15.0
    """The policy decides at every multiple of this time."""
    cooldown_s: Seconds = 300.0
    """Clients stop only down to the largest number that the policy wanted within this time."""
    startup_s: Seconds | None = None
    """The time from the start of a client until it takes tasks; null computes it."""
    boot_s: Seconds | None = None
    """The part of a computed start-up in which no weights move: the machine, the container, the engine. Null is 0."""
    load_gb_s: GBPerSecond | None = None
    """The bandwidth at which one client loads its weights from storage. Null loads them from the memory of the host,
    every device over its own link (``hardware.host_link_gb_s``).
    """
    max_up: Count | None = None
    """The most clients that start at one decision; null is any number."""
    max_down: Count | None = None
    """The most clients that stop at one decision; null is any number."""

    def __post_init__(self) -> None:
        if self.min > self.max:
            raise ConfigError("min", f"{self.min} is above max ({self.max}); expected at most {self.max}")
        for name in ("boot_s", "load_gb_s"):
            if self.startup_s is not None and getattr(self, name) is not None:
                raise ConfigError(
                    name, f"has no effect, because startup_s is {self.startup_s:g}; expected startup_s=null"
                )


@dataclass(frozen=True, slots=True)
class AutoscaleSettings:
    """The setting ``autoscale`` of one pool: its limits and its policy."""

    limits: ScalingLimits
    policy: ScalingPolicy


def parse_autoscale(value: Any, key: str) -> AutoscaleSettings:
    """Return what the mapping at ``key`` says. Raises ConfigError with the full key."""
    if isinstance(value, str):  # a policy without settings
        value = {scaling_policies.tag: value}
    if not isinstance(value, Mapping):
        raise ConfigError(
            key, f"{shown(value)} is not a mapping; expected keys such as policy, metric, target, min and max"
        )
    names = {field.name for field in fields(ScalingLimits)}
    own = {name: entry for name, entry in value.items() if name in names}
    rest = {name: entry for name, entry in value.items() if name not in names}
    policy = scaling_policies.parse(rest, key)
    try:
        limits = convert(ScalingLimits, own, key)
    except ConfigError as error:
        if error.key == key or error.key.startswith(f"{key}."):
            raise
        raise ConfigError(child(key, error.key), error.problem) from None
    return AutoscaleSettings(limits, policy)
