"""Command lines as flags with values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hermes_flow.errors import ConfigError

_ENTRIES = ("sglang.launch_server", "vllm.entrypoints.openai.api_server", "trtllm-serve", "vllm", "sglang")
_WORDS = ("serve", "server", "-m", "python", "python3", "exec")
_MODULES = ("sglang.launch_server", "vllm.entrypoints.openai.api_server", "trtllm-serve")
_VERBS = ("serve", "bench")  # of vllm and sglang
_SWITCHES = re.compile(  # flags without a value, but for true and false
    r"--(enable|disable|no|skip|show|headless|trust-remote-code|enforce-eager|async-scheduling)(-.*)?$"
)
_TRUTHS = ("true", "false", "1", "0", "yes", "no", "on", "off")
_SHELLS = ("bash", "sh", "zsh", "dash")
_IMAGES = re.compile(r"(?:vllm|sglang|tensorrt|trtllm)[\w./-]*(?::[\w.-]+)?$")


@dataclass(frozen=True, slots=True)
class Flags:
    """The words of a command line after its program: flags in long form with their values, and what stands alone."""

    values: Mapping[str, str | bool]
    words: tuple[str, ...] = ()
    environment: tuple[str, ...] = field(default=())


def parse_flags(command: str | Sequence[str], short: Mapping[str, str]) -> Flags:
    """Return the flags of a command; ``short`` gives the long form of short ones.

    A flag without a value is true. What stands before the program, as a shell, Docker or variables, is left out.
    Raises ConfigError where quotes are not closed.
    """
    try:
        text = command if isinstance(command, str) else None
        words = shlex.split(text, comments=True) if text is not None else list(command)
    except ValueError as error:
        raise ConfigError("task.path", f"not a command line: {error}") from None
    words = [word for word in words if word.strip() and word != "\\\\"]
    within = _within_a_shell(words)
    if within is not None:
        return parse_flags(within, short)
    start = _start(words)
    if words[start - 1 : start + 1] == ["vllm", "bench"]:
        raise ConfigError("task.path", "vllm bench runs a benchmark; expected vllm serve")
    environment = tuple(word for word in words[:start] if re.match(r"[A-Z_][A-Z0-9_]*=", word))
    values: dict[str, str | bool] = {}
    alone: list[str] = []
    rest = words[start:]
    index = 0
    while index < len(rest):
        word = rest[index]
        index += 1
        if not word.startswith("-") or _is_number(word):
            alone.append(word)
            continue
        name, given, value = word.partition("=")
        if name[:2] in short and re.fullmatch(r"-[A-Z][0-9]+", name):  # -O3
            name, given, value = name[:2], "=", name[2:]
        base, dot, part = name.partition(".")  # -sc.method
        name = short.get(base, base) + dot + part
        name = "--" + name.lstrip("-").replace("_", "-")
        if given:
            values[name] = value
        elif index < len(rest) and _is_a_value(rest[index], name):
            values[name] = rest[index]
            index += 1
        else:
            values[name] = True
    return Flags(values, tuple(alone), environment)


def flags_of_mapping(
    settings: Mapping[str, Any], short: Mapping[str, str], prefix: str = ""
) -> dict[str, str | bool]:
    """Return a mapping of settings, as a YAML file has it, as flags; what is nested is joined by dots.

    ``short`` gives the long form of short names, as SGLang's ``tp: 4``. A setting of null stays, as ``null``.
    """
    found: dict[str, str | bool] = {}
    for name, value in settings.items():
        flag = f"{prefix}{name}".replace("_", "-")
        if isinstance(value, Mapping):
            found |= flags_of_mapping(value, short, f"{flag}.")
            continue
        name = short.get(f"--{flag}", short.get(f"-{flag}", f"--{flag}"))
        found[name] = value if isinstance(value, bool) else "null" if value is None else str(value)
    return found


def _within_a_shell(words: list[str]) -> str | None:
    """Return the command that a shell runs, as in ``bash -c '…'``; None where there is no shell."""
    for place, word in enumerate(words[:-1]):
        shells = {before.rpartition("/")[2] for before in words[:place]} & set(_SHELLS)
        if shells and re.fullmatch(r"-[a-z]*c", word) and " " in words[place + 1]:
            return words[place + 1]
    return None


def _start(words: list[str]) -> int:
    """Return where the words after the program begin: after its name, or after the image of a container."""
    names = [word.rpartition("/")[2] if word.startswith(("/", "./")) else word for word in words]
    after = next((index + 1 for index in range(len(names)) if _is_a_program(names, index)), 0)
    if not after:  # a name that is the value of a flag, as in --served-model-name vllm, is no program
        named = [index for index, name in enumerate(names) if name in _ENTRIES]
        after = max(
            (index + 1 for index in named if not index or not names[index - 1].startswith("-")), default=0
        )
    if not after and {"docker", "podman", "nerdctl"} & set(names[:4]):
        after = next((index + 1 for index, word in enumerate(words) if _IMAGES.search(word)), 0)
    if not after:
        after = next(
            (index for index, word in enumerate(words) if not re.match(r"[A-Z_][A-Z0-9_]*=", word)), 0
        )
    while after < len(words) and words[after] in _WORDS:
        after += 1
    return after


def _is_a_program(names: Sequence[str], index: int) -> bool:
    """Return whether a word is certainly the program: a module, or vllm and sglang before their verb."""
    name = names[index]
    following = names[index + 1] if index + 1 < len(names) else ""
    return name in _MODULES or (name in _ENTRIES and following in _VERBS)


def _is_a_value(word: str, flag: str) -> bool:
    """Return whether a word is the value of the flag before it."""
    if _SWITCHES.match(flag):
        return word.lower() in _TRUTHS
    return not word.startswith("-") or _is_number(word)


def _is_number(word: str) -> bool:
    return re.fullmatch(r"-[0-9.]+", word) is not None
