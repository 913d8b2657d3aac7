"""Finds the file and line of a user where a key was set, for error messages."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hermes_flow.config.quantities import RangeError
from hermes_flow.errors import CompileError, ConfigError, HermesFlowError
from hermes_flow.program.quick_dataclass import dataclass

_BUILT_IN = ("hydra", "main", "schema")
_WITH_EFFECT = ("cluster", "pipeline", "slo", "workload")
_CUSTOMARY = ("cluster",)  # rate_for: cluster, as every built-in load has it
_DESCRIPTIONS = {"model", "hardware", "engine", "network"}
_PACKAGE = re.compile(r"\A\s*#\s*@package\s+(\S+)")


def shown_path(path: str | Path) -> str:
    """Return ``path`` relative to the working directory if it is inside it, else unchanged."""
    try:
        return str(Path(path).resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)


@dataclass(frozen=True, slots=True)
class Origins:
    """The sources of a configuration: the overrides, and the chosen files of the user.

    ``files`` holds a pair (package, file) per choice, the deeper packages first.
    """

    overrides: tuple[str, ...]
    files: tuple[tuple[str, Path], ...]

    def explained(self, error: HermesFlowError) -> HermesFlowError:
        """Return ``error`` with the user's file and line of every key at fault."""
        if isinstance(error, RangeError):
            first, *others = (
                RangeError(each.key, each.problem + self._place(each.key, each.problem), each.inside)
                for each in (error, *error.others)
            )
            return RangeError(first.key, first.problem, first.inside, others)
        if isinstance(error, ConfigError):
            return ConfigError(error.key, error.problem + self._place(error.key, error.problem))
        if isinstance(error, CompileError):
            texts = [text.partition(": ") for text in error.problems]
            return CompileError([f"{key}{colon}{rest}{self._place(key, rest)}" for key, colon, rest in texts])
        return error

    def file_keys(self) -> list[str]:
        """Return the keys that the user's files set, as overrides without a value (``key=``).

        All keys of an experiment are among them. Of an entry of a group, which mostly gives every key of its kind,
        those that describe a load, a pipeline, a cluster or bounds are, unless their value is neutral or that of
        another key; what a model or a machine is like holds whether or not a run needs it.
        """
        keys = []
        for package, path in self.files:
            root = package.partition(".")[0]
            if not package:
                keys += [key for key, _ in _values_of(path)]
            elif root in _WITH_EFFECT and not {*package.split(".")} & _DESCRIPTIONS:
                keys += [
                    f"{package}.{key}" for key, value in _values_of(path) if not _says_nothing(key, value)
                ]
        return [f"{key}=" for key in keys]

    def place_of(self, key: str) -> str:
        """Return the user's file and line that set ``key``, in brackets; nothing where an override did."""
        return self._place(key, "")

    def _place(self, key: str, problem: str) -> str:
        missing = problem.startswith("missing")
        for override in self.overrides:
            name = override.partition("=")[0].lstrip("+~")
            if key == name or key.startswith(f"{name}."):
                return ""
        for package, path in self.files:
            below = _below(key, package)
            line = None if below is None else line_of(path, below)
            if line is not None or (missing and below):
                return f" ({shown_path(path)}{'' if line is None else f':{line}'})"
        return ""


def origins(hydra: Any, overrides: Sequence[str]) -> Origins:
    """Return the origins of a configuration whose ``hydra`` node is given.

    Raises ConfigError where a file of the user has the name of a built-in one: Hydra would take the latter.
    """
    folders = [
        (source.provider, Path(source.path.removeprefix("file://")))
        for source in hydra.runtime.config_sources
        if source.schema == "file"
    ]
    choices: Mapping[str, Any] = {str(key): value for key, value in hydra.runtime.choices.items()}
    values = tuple(text for text in overrides if text.partition("=")[0].lstrip("+~") not in choices)
    files = []
    for choice, name in choices.items():
        group, _, package = choice.partition("@")
        found = [
            (provider, folder / group / f"{name}.yaml")
            for provider, folder in folders
            if (folder / group / f"{name}.yaml").is_file()
        ]
        if not found or found[-1][0] in _BUILT_IN:
            continue
        path = found[-1][1]
        if found[0][0] in _BUILT_IN and path.resolve() != found[0][1].resolve():
            raise ConfigError(group, f"{name!r} is built in; give {shown_path(path)} another name")
        files.append((package or _package(path, group), path))
    files.sort(key=lambda entry: -len(entry[0]))
    return Origins(values, tuple(files))


def _package(path: Path, group: str) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        header = _PACKAGE.match(file.read(512))
    if header is None:
        return group.replace("/", ".")
    return "" if header.group(1) == "_global_" else header.group(1)


def _below(key: str, package: str) -> list[str] | None:
    if not package:
        return key.split(".")
    if key == package:
        return []
    return key[len(package) + 1 :].split(".") if key.startswith(f"{package}.") else None


def _values_of(path: Path) -> list[tuple[str, Any]]:
    """Return the keys of a YAML file with their values; nothing for a file that cannot be read."""
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return []
    return list(_leaves(content, "")) if isinstance(content, Mapping) else []


def _leaves(content: Any, key: str) -> Iterator[tuple[str, Any]]:
    if not isinstance(content, Mapping):
        yield key, content
        return
    for name, value in content.items():
        yield from _leaves(value, f"{key}.{name}" if key else str(name))


def _says_nothing(key: str, value: Any) -> bool:
    """Tell whether an entry gives a key only to be complete: null, nothing, none, once, or another key's value."""
    names = key.split(".")
    linked = isinstance(value, str) and "${" in value
    neutral = value in (None, 0, 1, "", [], *_CUSTOMARY)
    return linked or neutral or names[0] == "defaults" or names[-1] == "name"


def line_of(path: Path, names: Sequence[str]) -> int | None:
    """Return the line of the entry that ``names`` lead to in a YAML file, or None."""
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    line = None
    for name in names:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        entry = next((pair for pair in entries if pair[0].value == name), None)
        if entry is None:
            return None
        line = entry[0].start_mark.line + 1
        node = entry[1]
    return line
