"""Reads YAML through libyaml, where PyYAML has it, with the values that OmegaConf reads.

OmegaConf's own reader is written in Python and takes ten times as long. The values differ from those of plain YAML:
``1e3`` is a number, a date is a text, and a key given twice is an error.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf._utils import get_yaml_loader
from omegaconf.errors import OmegaConfBaseException


@contextmanager
def fast_yaml() -> Iterator[None]:
    """Let OmegaConf read YAML through libyaml, where PyYAML has it."""
    loader = yaml.SafeLoader
    yaml.SafeLoader = getattr(yaml, "CSafeLoader", loader)  # OmegaConf derives its own whenever it reads
    try:
        yield
    finally:
        yaml.SafeLoader = loader


def read_plain(file: IO[str] | str) -> Any:
    """Return the content of a YAML file as plain values, with interpolations as they stand.

    Raises yaml.YAMLError where it is not YAML.
    """
    return yaml.load(file, Loader=_yaml_loader())


def read_resolved(text: str) -> Any:
    """Return the content of a saved configuration as plain values, with its interpolations resolved.

    They stay as they stand where one of them cannot be resolved, as those of Hydra itself. Raises yaml.YAMLError
    where the text is not YAML.
    """
    plain = read_plain(text)
    if "${" not in text or not isinstance(plain, dict):
        return plain
    from hermes_flow.config.quick_hydra import joined, to_plain

    try:
        return to_plain(joined(plain, OmegaConf.create()), resolve=True)
    except OmegaConfBaseException:
        return plain


@functools.cache
def _yaml_loader() -> Any:
    """Return OmegaConf's reader of YAML, which it makes anew for each file."""
    with fast_yaml():
        return get_yaml_loader()
