"""Fills ``hardware.engine``: what a serving engine adds to the kernels on a hardware.

The engine has the figures by hardware (``engine.overheads``), and a hardware names its entry (``overheads_of``).
Entries built on that hardware inherit the name, whatever they are called themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hermes_flow.errors import ConfigError, did_you_mean


def takes_overheads(hardware: Any) -> bool:
    """Tell whether a hardware (a plain mapping) takes overheads of the engine.

    Without ``overheads_of`` it has only those of its own, and ``engine: null`` says that they are unknown.
    """
    if not isinstance(hardware, Mapping) or not isinstance(hardware.get("overheads_of"), str):
        return False
    return "engine" not in hardware or hardware["engine"] is not None


def with_overheads(hardware: Any, engine: Any, key: str | None) -> Any:
    """Return a hardware with the overheads of ``engine`` on it; both are plain mappings.

    Entries of the hardware's own ``engine`` replace single figures. ``key`` is the hardware's. Raises ConfigError
    where the engine has no such overheads; without a ``key`` they are null then.
    """
    if not takes_overheads(hardware):
        return hardware
    name = hardware["overheads_of"]
    engine = engine if isinstance(engine, Mapping) else {}
    overheads = engine.get("overheads")
    overheads = overheads if isinstance(overheads, Mapping) else {}
    if name in overheads:
        return {**hardware, "engine": changed(overheads[name], hardware.get("engine", {}))}
    if key is None:
        return {**hardware, "engine": None}
    known = did_you_mean(name, [str(each) for each in overheads])
    raise ConfigError(
        f"{key}.overheads_of",
        f"the engine {engine.get('name')} has no overheads of {name!r} (null takes only the figures of "
        f"{key}.engine){known}",
    )


def changed(whole: Any, figures: Any) -> Any:
    """Return ``whole`` with the entries of ``figures`` in place of its own, level by level."""
    if not isinstance(whole, Mapping) or not isinstance(figures, Mapping):
        return figures
    return {**whole, **{name: changed(whole.get(name), value) for name, value in figures.items()}}
