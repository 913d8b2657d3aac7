"""Where the built-in configs are."""

from __future__ import annotations

from pathlib import Path

from hermes_flow.errors import HermesFlowError


def config_folder() -> Path:
    """Return the folder of the built-in configs: the package's own in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise HermesFlowError(f"the built-in configs are missing from {package}; reinstall hermes-flow")
