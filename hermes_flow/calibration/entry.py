"""Writes the catalog entry of a calibration: its text, its place and a note on its use."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hermes_flow.config.folders import config_folder, hardware_names
from hermes_flow.config.origin import shown_path
from hermes_flow.cost.fitted.step_fit import StepFit
from hermes_flow.errors import ConfigError, HermesFlowError, did_you_mean

_WIDTH = 110  # of a file
_COLUMNS = 80  # of a terminal


@dataclass(frozen=True, slots=True)
class Entry:
    """A file ``name``.yaml of ``group``, with the text to print about it.

    ``text`` is its YAML, ``lines`` the report, ``figures`` the same for ``summary.json``, ``use`` what a command has
    beside ``group=name`` to use it.
    """

    group: str
    text: str
    lines: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    use: tuple[str, ...] = ()
    carried: Mapping[str, str] = field(default_factory=dict)  # the same for other hardware, by its name


def entry_path(group: str, name: str, folder: Path, *, overwrite: bool) -> Path:
    """Return the path of the entry; raises ConfigError if the name is not valid or is taken."""
    if not name or not all(letter.isalnum() or letter in "_-." for letter in name) or name.startswith("."):
        raise ConfigError("task.name", f"{name!r} is not a valid file name; expected letters, digits and _")
    if (config_folder() / group / f"{name}.yaml").exists():
        raise ConfigError("task.name", f"{name!r} is built in ({group}={name}); expected another name")
    path = folder / group / f"{name}.yaml"
    lowest = next(parent for parent in path.parents if parent.exists())
    if not lowest.is_dir():
        raise ConfigError("task.into", f"{shown_path(lowest)} is a file; expected a folder")
    if path.exists() and not overwrite:
        raise ConfigError(
            "task.name", f"{shown_path(path)} exists; expected another name, or task.overwrite=true"
        )
    return path


def require_hardware(name: str) -> None:
    """Raise ConfigError unless ``name`` is hardware of the catalog or of the user's folders."""
    names = hardware_names()
    if name not in names:
        raise ConfigError("task.carry_to", f"{name!r} is no hardware{did_you_mean(name, names)}")


def write_entry(entry: Entry, path: Path) -> None:
    """Write the entry and its folders; raises HermesFlowError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(entry.text, encoding="utf-8")
    except OSError as error:
        raise HermesFlowError(f"{shown_path(path)} cannot be written: {error.strerror}") from error


def wrapped(text: str, indent: str = "  ") -> list[str]:
    """Return the text in lines of at most 80 columns, without dividing words; later lines begin with ``indent``."""
    return textwrap.wrap(
        text, _COLUMNS, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def comment(*paragraphs: str) -> str:
    """Return the paragraphs as lines of a YAML comment."""
    lines = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, _WIDTH - 2)]
    return "".join(f"# {line}\n" for line in lines)


def folded(text: str, indent: str) -> str:
    """Return the text as a folded YAML scalar below a key that stands at ``indent``."""
    text = text.replace("${", "\\${")  # no interpolation
    lines = textwrap.wrap(text, _WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
    return ">-\n" + "\n".join(f"{indent}  {line}" for line in lines)


def fit_text(fit: StepFit, indent: str) -> str:
    """Return the coefficients that are not at their defaults as YAML, one a line."""
    lines = []
    for entry in fields(StepFit):
        value = getattr(fit, entry.name)
        if value is None or (not value and entry.default is not None):
            continue
        if isinstance(value, str):
            lines.append(f"{indent}{entry.name}: {folded(value, indent)}")
        elif isinstance(value, tuple):
            lines.append(f"{indent}{entry.name}: [{', '.join(map(number, value))}]")
        else:
            lines.append(f"{indent}{entry.name}: {number(value)}")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return six digits of a number, as YAML knows it."""
    text = f"{value:.6g}"
    if "e" in text and "." not in text:  # else a YAML 1.1 reader takes it for text
        text = text.replace("e", ".0e")
    return text


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return lines of columns, the first to the left, the others to the right but for the last."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return lines
