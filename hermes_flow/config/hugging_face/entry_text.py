"""An imported model as the YAML of a catalog entry, with the source of its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def entry_text(entry: Mapping[str, Any], path: str | Path) -> str:
    """Return the YAML of ``entry``; ``path`` is the file or folder that it was read from."""
    import yaml  # type: ignore[import-untyped]

    file = Path(path).name or str(path)
    comments = {
        "parameters_b": "safetensors index beside it, or all matrices of this shape, without biases and norms",
        "sampling": "generation_config.json beside it; false where there is none",
        "precision": "quantization config of the checkpoint",
    }
    lines = [f"# {entry['name']}, imported.", f"# source: Hugging Face config.json, read from {file}"]
    for name, value in entry.items():
        if name in comments:
            lines.append(f"# source: {comments[name]}")
        lines.append(
            yaml.safe_dump({name: value}, sort_keys=False, allow_unicode=True, width=110).rstrip("\n")
        )
    return "\n".join(lines) + "\n"
