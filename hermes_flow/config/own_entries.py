"""Names the user's own entry in an error that was found while Hydra read the entry."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.request import url2pathname

from hermes_flow.config.origin import shown_path
from hermes_flow.errors import ConfigError, HermesFlowError

_CONFIG_DIR = ("--config-dir", "-cd")


def with_own_entry(error: HermesFlowError, arguments: Sequence[str]) -> HermesFlowError:
    """Return ``error`` with the user's file, where ``arguments`` choose one entry of the user's own.

    An error about what the arguments say themselves stays as it is, and so does one that names a file of the entry.
    """
    if type(error) not in (ConfigError, HermesFlowError):
        return error
    key = error.key if isinstance(error, ConfigError) else ""
    text = str(error)
    for override in arguments:
        name, _, value = override.lstrip("+~").partition("=")
        if name == key or (value and f"'{value}'" in text):
            return error
    own = sorted(set(_own_entries(arguments)))
    if len(own) != 1 or f"{own[0].parent.name}/{own[0].name}" in text:
        return error
    place = f" (in {shown_path(own[0])}, or what it names)"
    if isinstance(error, ConfigError):
        return ConfigError(error.key, error.problem + place)
    return HermesFlowError(text + place)


def _own_entries(arguments: Sequence[str]) -> Iterator[Path]:
    """Yield the files of the user that overrides choose as entries of groups."""
    folders = list(_folders(arguments))
    for override in arguments:
        choice, equals, entry = override.lstrip("+").partition("=")
        group = choice.partition("@")[0]
        if equals and re.fullmatch(r"[\w/-]+", group) and re.fullmatch(r"[\w./-]+", entry):
            yield from (path for folder in folders if (path := folder / group / f"{entry}.yaml").is_file())


def _folders(arguments: Sequence[str]) -> Iterator[Path]:
    """Yield the folders of configs that the arguments name."""
    for place, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in _CONFIG_DIR:
            following = arguments[place + 1] if place + 1 < len(arguments) else ""
            yield Path(value if equals else following)
        elif name == "hydra.searchpath":
            yield from (Path(url2pathname(path)) for path in re.findall(r"file://([^,\]]+)", value))
