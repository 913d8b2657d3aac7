"""Names the figures that an engine of the user's own takes from the entry it is built on.

Hydra merges both files key by key. Whoever replaces some overheads of a hardware may not know that the others, and
the fits of kernels among them, are still those of another engine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from hermes_flow.config.given_keys import Given
from hermes_flow.config.hardware_measurements import EngineOverhead
from hermes_flow.config.origin import shown_path
from hermes_flow.config.schema import Config

_NEUTRAL: tuple[Any, ...] = (None, 0, False, {})
_DEFAULTS = {each.name: each.default for each in fields(EngineOverhead) if each.default is not MISSING}


def inherited_overheads(config: Config) -> list[str]:
    """Return a warning for each hardware of which the user's engine file states some overheads and not all.

    Only hardware counts that a pool with this engine takes. Figures that say "none" count as stated.
    """
    given = config.given
    if given is None or given.origins is None:
        return []
    warnings = []
    for package, path in given.origins.files:
        if package.rpartition(".")[2] != "engine":
            continue
        engine, content = _at(given.plain, package), _content(path)
        own, base = content.get("overheads"), _base(content)
        for hardware in _hardware_of_pools(config, given, package):
            stated = own.get(hardware) if isinstance(own, Mapping) else None
            if not isinstance(stated, Mapping) or base is None:
                continue
            taken = list(_taken(engine["overheads"][hardware], stated, _DEFAULTS))
            if taken:
                warnings.append(
                    f"{package}.overheads.{hardware}: {shown_path(path)} states {_counted(stated)}, and takes "
                    f"{', '.join(taken)} from {base}, on which it is built; expected these figures there, too, where "
                    "they are not the same (null, or 0, for none)"
                )
    return warnings


def _hardware_of_pools(config: Config, given: Given, package: str) -> list[str]:
    """Return the entries of overheads that the pools with the engine at ``package`` take."""
    parts = package.split(".")
    names = [parts[-2]] if len(parts) > 1 else given.pools("engine", own=False)
    machines = [getattr(config.cluster.pools[name], "hardware", None) for name in names]
    return sorted({one.overheads_of for one in machines if one is not None and one.overheads_of})


def _taken(
    merged: Mapping[str, Any], stated: Mapping[str, Any], defaults: Mapping[str, Any]
) -> Iterator[str]:
    """Yield the names of entries of ``merged`` that are not in ``stated``, dotted where a part of a mapping is."""
    for name, value in merged.items():
        own = stated.get(name)
        if name not in stated:
            if value not in _NEUTRAL and value != defaults.get(name, MISSING):
                yield name
        elif isinstance(own, Mapping) and isinstance(value, Mapping):
            yield from (f"{name}.{each}" for each in _taken(value, own, {}))


def _counted(stated: Mapping[str, Any]) -> str:
    names = [name for name in stated if name != "source"]
    return ", ".join(names) if names else "no figure"


def _base(content: Mapping[str, Any]) -> str | None:
    """Return the entry on which a file is built, by its list of defaults; None where it is complete of itself."""
    defaults = content.get("defaults")
    names = [each for each in defaults if isinstance(each, str)] if isinstance(defaults, list) else []
    return next((name for name in names if name != "_self_"), None)


def _content(path: Path) -> Mapping[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return content if isinstance(content, Mapping) else {}


def _at(plain: Mapping[str, Any], key: str) -> Any:
    for name in key.split("."):
        plain = plain[name]
    return plain
