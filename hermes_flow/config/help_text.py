"""Writes the text of ``hermes-flow --help`` from the files of the groups, without composing a configuration."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hermes_flow.config.folders import config_folder

_HELP = ("--help", "-h")
_FOLDER = ("--config-dir", "-cd")


def help_text(arguments: Sequence[str]) -> str | None:
    """Return the help that ``arguments`` ask for: that of the command, or the keys of the verb among them.

    ``arguments`` are those of Hydra, with the verb as ``task=VERB``. Returns None where there are others than a
    folder of configs, because Hydra then checks them before it prints the help.
    """
    folders = [config_folder()]
    verb = None
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition("=")
        if argument in _HELP:
            continue
        if name in _FOLDER:
            folders.append(Path(value or next(rest, "")).expanduser())
        elif name == "task" and verb is None:
            verb = value
        else:
            return None
    if not all(folder.is_dir() for folder in folders):
        return None
    if verb is None:
        return _command(folders)
    files = [folder / "task" / f"{verb}.yaml" for folder in folders]
    return next((_verb(verb, file) for file in files if file.is_file()), None)


def _command(folders: Sequence[Path]) -> str:
    texts = _help_file(folders[0])
    groups: dict[str, set[str]] = {}
    for folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(folder).as_posix()
            if group.split("/")[0] not in (".", "hydra", "task"):  # the verbs of the header are the tasks
                groups.setdefault(group, set()).add(file.stem)
    lines = [f"{group}: {', '.join(sorted(names))}" for group, names in sorted(groups.items())]
    return "\n".join([texts["header"], "groups and their entries (group=entry)", *lines, "", texts["footer"]])


def _help_file(folder: Path) -> Any:
    import yaml  # type: ignore[import-untyped]

    text = (folder / "hydra" / "help" / "hermes_flow.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _verb(verb: str, file: Path) -> str:
    """Return what the file of a verb says, in its own lines: what the verb does, its keys, defaults and meanings."""
    lines = file.read_text(encoding="utf-8").splitlines()
    about = [
        line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line
    ]
    keys = [line for line in lines if line[:1].isalpha()]
    if "task:" in keys:  # a file that sets other groups too
        inside = itertools.takewhile(lambda line: line.startswith("  "), lines[lines.index("task:") + 1 :])
        keys = [line[2:] for line in inside if line[2:3].isalpha()]
    keys = [f"task.{line}" for line in keys if not line.startswith("kind:")]
    parts = [f"usage: hermes-flow {verb} [group=entry …] [key=value …]", "", *about, ""]
    if keys:
        parts += ["keys of the verb, with their defaults", *keys, ""]
    return "\n".join([*parts, "hermes-flow --help lists the groups, their entries and the other options."])
