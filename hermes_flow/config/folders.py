"""Finds the folders of the built-in configs and of the user's own."""

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


def hardware_names() -> list[str]:
    """Return the names of the hardware of the catalog and of the user's folders, in the order of the alphabet."""
    folders = [config_folder(), *user_folders()]
    return sorted({path.stem for folder in folders for path in (folder / "hardware").glob("*.yaml")})


def user_folders() -> list[Path]:
    """Return the user's config folders in the running command's search path; none outside a command."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    return [
        Path(source.path.removeprefix("file://")).resolve()
        for source in HydraConfig.get().runtime.config_sources
        if source.schema == "file" and source.provider not in ("hydra", "main", "schema")
    ]
