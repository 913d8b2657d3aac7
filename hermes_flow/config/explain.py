"""Hydra's and OmegaConf's errors as ours: the key, the value, what was expected, the nearest valid name."""

from __future__ import annotations

import re
from typing import Any

from hermes_flow.errors import ConfigError, HermesFlowError, did_you_mean


def explain(error: BaseException) -> HermesFlowError:
    """Return the ConfigError (or a plain HermesFlowError) that tells a user what ``error`` means."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import InterpolationKeyError

    if isinstance(error, HermesFlowError):
        return error
    if isinstance(error, OverrideParseException):
        return ConfigError(error.override, f"not a valid override ({_first_line(error)}); expected key=value")
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, InterpolationKeyError):
        return ConfigError(str(error.full_key), _first_line(error))
    text = str(error)
    refused = re.search(r"Could not (?:override|append) '([^']+)'", text)
    if refused:
        return _refused_override(refused.group(1), error)
    broken = re.search(r'in "([^"]+)", line (\d+)', text)
    if broken:
        return HermesFlowError(f"{broken.group(1)}:{broken.group(2)}: not valid YAML ({_first_line(error)})")
    full_key = getattr(error, "full_key", None)
    if full_key:
        return ConfigError(str(full_key), _first_line(error))
    return HermesFlowError(" ".join(text.split()))


def _missing_config(error: Any) -> HermesFlowError:
    options = list(error.options or ())
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    if group and options:
        return ConfigError(group, f"there is no {name!r}{did_you_mean(name, options)}")
    return HermesFlowError(" ".join(str(error).split()))


def _refused_override(key: str, error: BaseException) -> ConfigError:
    """An override of a key that does not exist: find the part that is wrong and its nearest neighbour."""
    text = str(error)
    if "No match in the defaults list" in text:
        return ConfigError(key, f"unknown key or config group{did_you_mean(key, _GROUPS)}")
    cause = error.__cause__ or error.__context__
    parent = getattr(cause, "parent_node", None)
    wrong = getattr(cause, "key", None)
    names = [str(name) for name in parent] if parent is not None and hasattr(parent, "keys") else []
    if not names:
        return ConfigError(key, _first_line(cause or error))
    full = str(getattr(cause, "full_key", None) or key)
    names = [name for name in names if name != "hydra"]
    return ConfigError(full, f"unknown key{did_you_mean(str(wrong), names)}")


_GROUPS = [
    "pipeline",
    "cluster",
    "workload",
    "model",
    "hardware",
    "cost",
    "slo",
    "task",
    "experiment",
    "seed",
    "output",
    "hydra/launcher",
    "hydra/sweeper",
]


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0].rstrip(".")
