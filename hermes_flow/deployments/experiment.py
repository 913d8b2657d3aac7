"""An imported deployment as the YAML of an experiment."""

from __future__ import annotations

import textwrap
from typing import Any

from hermes_flow.deployments.imported import Imported

_GROUPS = ("cluster", "engine", "model")


def experiment_text(found: Imported, what: str, given: str) -> str:
    """Return the experiment; ``given`` is where the deployment of ``what`` was read from, or its command line.

    Choices of groups come first, then single keys. A model that is a path is chosen on the command line alone.
    """
    import yaml  # type: ignore[import-untyped]

    defaults, keys = [], dict[str, Any]()
    for key, value in found.overrides.items():
        group = key.partition("@")[0]
        if group in _GROUPS and "." not in group:
            place = f"@{key.partition('@')[2]}" if "@" in key else ""
            defaults.append({f"override /{group}{place}": value})
            continue
        inner = keys
        *above, last = key.split(".")
        for name in above:
            inner = inner.setdefault(name, {})
        inner[last] = value
    said = [f"Imported from {what}: {' '.join(given.split())}"]
    said += [f"Ignored: {flag} ({why})" for flag, why in found.ignored.items()]
    said += found.notes
    lines = ["# @package _global_"]
    for text in said:
        lines += [
            f"# {line}" for line in textwrap.wrap(text, 110, break_long_words=False, break_on_hyphens=False)
        ]
    parts = [{"defaults": defaults}] if defaults else []
    parts += [{name: inner} for name, inner in keys.items()]
    body = "\n".join(yaml.safe_dump(part, sort_keys=False, allow_unicode=True) for part in parts)
    return "\n".join(lines) + "\n" + body
