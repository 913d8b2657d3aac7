"""Composing: overrides in, a validated Config out. The only place that touches a DictConfig."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.convert import convert
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError, HermesFlowError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_NOT_OURS = ("hydra", "experiment")

# Mappings whose keys depend on the variant they name: an override with a mapping replaces them whole, where
# Hydra alone would merge the old variant's keys into the new one.
_VARIANTS = ("workload.arrivals", "workload.input_tokens", "workload.output_tokens")


def config_folder() -> Path:
    """Return the folder of the built-in configs: the package's own in a wheel, else the checkout's."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise HermesFlowError(f"the built-in configs are missing from {package}; reinstall hermes-flow")


def compose(overrides: Sequence[str] = (), config_dir: str | Path | None = None) -> Config:
    """Return the configuration that ``overrides`` (Hydra's grammar, as on the command line) describe.

    ``config_dir`` is a folder of your own groups, searched before the built-in ones. Raises ConfigError
    where a key, a value or a name is wrong.
    """
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hermes_flow.config.explain import explain

    arguments = prepared(overrides)
    if config_dir is not None:
        folder = Path(config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError("config_dir", f"{folder} is not a folder")
        arguments.append(f"hydra.searchpath=[{folder.as_uri()}]")
    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(
            version_base="1.3", config_dir=str(config_folder()), job_name="hermes-flow"
        ):
            return to_config(hydra_compose("config", overrides=arguments), arguments)
    except (HydraException, OmegaConfBaseException, OSError) as error:
        raise explain(error) from None
    finally:
        GlobalHydra.instance().hydra = before


def to_config(composed: DictConfig, overrides: Sequence[str] = ()) -> Config:
    """Return a composed DictConfig as a Config, strictly; raises ConfigError naming the key at fault.

    ``overrides`` are those it was composed with.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from hermes_flow.config.explain import explain

    try:
        plain: Any = OmegaConf.to_container(composed, resolve=True)
    except OmegaConfBaseException as error:
        raise explain(error) from None
    if not isinstance(plain, Mapping):
        raise ConfigError("", "the configuration is not a mapping")
    for key, value in _whole_variants(overrides):
        group, name = key.split(".")
        plain[group][name] = value
    return convert(Config, {key: value for key, value in plain.items() if key not in _NOT_OURS}, "")


def prepared(overrides: Sequence[str]) -> list[str]:
    """Return the overrides as Hydra takes them: a variant given as a mapping may have keys of its own."""
    starts = tuple(f"{key}={{" for key in _VARIANTS)
    return [f"++{text}" if text.startswith(starts) else text for text in overrides]


def _whole_variants(overrides: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Yield (key, mapping) for every override that gives a variant as a mapping."""
    given = [
        text for text in overrides if text.lstrip("+").startswith(tuple(f"{key}={{" for key in _VARIANTS))
    ]
    if not given:
        return
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    for override in OverridesParser.create().parse_overrides(given):
        yield override.key_or_group, OmegaConf.to_container(OmegaConf.create({"it": override.value()}))["it"]  # type: ignore[index,call-overload]
