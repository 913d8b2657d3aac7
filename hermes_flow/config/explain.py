"""Translates errors of Hydra and OmegaConf into our own, with the key, the value and the nearest valid name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hermes_flow.config.aliases import hint, named_on_hugging_face
from hermes_flow.config.folders import config_folder
from hermes_flow.config.origin import shown_path
from hermes_flow.errors import ConfigError, HermesFlowError, did_you_mean


def user_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of Hydra, OmegaConf and YAML for mistakes in an override or a config file."""
    import yaml  # type: ignore[import-untyped]
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    # Hydra raises plain ValueErrors too, and warns of a search path that does not exist.
    return HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, ValueError, UserWarning


def explain(error: BaseException, arguments: Sequence[str] = ()) -> HermesFlowError:
    """Return the ConfigError (or a plain HermesFlowError) that explains ``error``, which ``arguments`` led to."""
    import yaml
    from hydra.errors import MissingConfigException, OverrideParseException

    if isinstance(error, HermesFlowError):
        return error
    if isinstance(error, OverrideParseException):
        return _broken_override(error)
    if isinstance(error, MissingConfigException):
        return _missing_config(error)
    if isinstance(error, yaml.YAMLError):
        return _broken_yaml(error)
    if isinstance(error, OSError) and error.filename is not None:
        return HermesFlowError(f"{shown_path(closed_path(error))}: {error.strerror}")
    text = str(error)
    if text.startswith("Config group override must be a string"):
        return _no_entry(arguments)
    composed = re.match(r"In '([^']+)': \w+ raised while composing config:", text)
    within = error.__cause__ or error.__context__
    if composed and within is not None:
        place = getattr(within, "full_key", None)
        return HermesFlowError(f"{composed[1]}.yaml: {f'{place}: ' if place else ''}{_clause(within)}")
    for pattern, answer in _MESSAGES.items():
        match = re.search(pattern, text, flags=re.DOTALL)
        if match:
            return answer(match)
    refused = re.search(r"Could not override '([^']+)'", text)
    if refused:
        return _refused_override(refused.group(1), error)
    full_key = getattr(error, "full_key", None)
    if full_key:
        return ConfigError(str(full_key), _clause(error))
    cause = error.__cause__ or error.__context__
    if cause is not None and (not text or text.startswith("Error merging override")):
        return explain(cause, arguments)
    nothing = re.search(r"Interpolation key '([^']*)' not found", text)
    if nothing:  # Hydra merges files without the key that they stand at
        return HermesFlowError(
            f"${{{nothing[1]}}} in a config file refers to a key that is not there; expected the full key of "
            "another value, as in ${workload.seed}"
        )
    return HermesFlowError(" ".join(text.split()) or type(error).__name__)


def closed_path(error: OSError) -> str:
    """Return the file of ``error``, or the outermost folder above it that may not be searched."""
    path = Path(error.filename)
    above = (
        folder for folder in reversed(path.parents) if folder.is_dir() and not os.access(folder, os.X_OK)
    )
    return str(next(above, path))


def _no_entry(arguments: Sequence[str]) -> HermesFlowError:
    """Return the error for a group that is given null, a number or a truth value."""
    for argument in arguments:
        key, equals, value = argument.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if equals and not key:
            return HermesFlowError("an override has no key; expected key=value")
        if (config_folder() / group).is_dir() and re.fullmatch(
            r"(?i)null|true|false|[-+]?[\d._]+(e[-+]?\d+)?", value
        ):
            entries = sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))
            form = f", as in {key}={entries[0]}" if entries else ""
            return ConfigError(key, f"{value} is not the name of an entry; expected one{form}")
    return HermesFlowError("a group takes the name of one of its entries, as in model=llama3_8b")


def _several_values(key: str, value: str) -> ConfigError:
    listed = f", or write [{value}] for a list" if "." in key else ""
    return ConfigError(key, f"{value} are several values; add -m to sweep over them{listed}")


def _as_null(key: str) -> str:
    """Return how to take away what the engine gives, which has no place in a file of hardware."""
    return f" in the files; {key}=null takes away what the engine has" if "hardware.engine" in key else ""


_MESSAGES: dict[str, Callable[[re.Match[str]], HermesFlowError]] = {
    r"Ambiguous value for argument '([^=]+)=(.*?)'\n": lambda m: _several_values(m[1], m[2]),
    r"Sweep parameters '([^=]+)=(.*)' requires": lambda m: ConfigError(
        m[1], f"{m[2]} is a sweep; add -m to run it"
    ),
    r"An item is already at '([^']+)'": lambda m: ConfigError(m[1], "is there already; leave out the +"),
    r"^(\S+) appears more than once in the final defaults list": lambda m: ConfigError(
        m[1], "is chosen twice; leave out the +"
    ),
    r"Could not delete '([^'=]+)(=?)([^']*)'. No match": lambda m: ConfigError(
        m[1], f"cannot be deleted: {m[3] or 'it'} is not chosen"
    ),
    r"Could not delete from config. '([^']+)' does not exist": lambda m: ConfigError(
        m[1], f"cannot be deleted: there is no such key{_as_null(m[1])}"
    ),
    r"The value of '([^']+)' is (.*) and not (.*)\.$": lambda m: ConfigError(
        m[1], f"cannot be deleted: it is {m[2]}, not {m[3]}"
    ),
    r"Override (\S+?)=\S* looks like a config group override": lambda m: ConfigError(
        m[1],
        f"there is no group {m[1].split('@')[0]!r}"
        f"{hint(m[1].split('@')[0]) or did_you_mean(m[1].split('@')[0], _groups())}",
    ),
    r"Could not (?:override|delete) ''": lambda _: HermesFlowError(
        "an override has no key; expected key=value"
    ),
    r"Could not override '([^']+)'\.\nDid you mean to override (?:one of )?(.*?)\?": lambda m: ConfigError(
        m[1], f"nothing is chosen there{did_you_mean(m[1], m[2].split(', '))}"
    ),
    r"Could not override '([^']+)'\. No match in the defaults list": lambda m: ConfigError(
        m[1], f"unknown key or group{hint(m[1]) or did_you_mean(m[1], _groups())}"
    ),
    r"Missing mandatory value: (\S+)": lambda m: ConfigError(m[1], f"missing; set it, as in {m[1]}=…"),
    r"Additional config directory '(.*)' not found": lambda m: HermesFlowError(
        f"--config-dir: there is no folder {shown_path(m[1])}"
    ),
    r"provider=(.*?)(?: in .*)?, path=(.*) is not\s+available": lambda m: ConfigError(
        m[1], f"there is no folder {shown_path(m[2])}"
    ),
    r"(?:no viable alternative at input|token recognition error at:) '(\$\{.*)'": lambda m: HermesFlowError(
        f"{m[1]!r} is not a valid interpolation; expected ${{key}}"
    ),
    r"'utf-8' codec can't decode": lambda _: HermesFlowError("a config file is not UTF-8 text"),
}


def _missing_config(error: Any) -> HermesFlowError:
    missing = str(error.missing_cfg_file or "")
    group, _, name = missing.rpartition("/")
    if not group:
        return HermesFlowError(f"--config-name: there is no {missing}.yaml in the config folders")
    options = list(error.options or ())
    extra = _EXTRAS.get(missing)
    if extra is not None:
        problem = f"{name!r} is not there; python -m pip install 'hermes-flow[{extra}]' installs it"
        return ConfigError(group, problem)
    named_in = re.search(r"In '([^']+)': ", str(error))
    if named_in and not options and named_in[1] != "config":
        return HermesFlowError(f"{named_in[1]}.yaml: its defaults name {missing!r}, which does not exist")
    if group.partition("/")[0] == "model":  # as Hugging Face names it, ORGANISATION/NAME
        published = named_on_hugging_face(missing.removeprefix("model/"))
        if published is not None:
            return ConfigError("model", f"there is no {missing.removeprefix('model/')!r}; {published}")
    path = _path_of_entry(missing)
    if path is not None:
        return path
    return ConfigError(group, f"there is no {name!r}{_near_entry(name, options) or ', nor any other'}")


_EXTRAS = {
    "hydra/launcher/joblib": "joblib",
    "hydra/launcher/ray": "ray",
    "hydra/launcher/submitit_local": "submitit",
    "hydra/launcher/submitit_slurm": "submitit",
}


def _path_of_entry(missing: str) -> ConfigError | None:
    """Return the error for a path, as in hardware=./mine.yaml, where a group takes the name of an entry."""
    from hermes_flow.config.folders import config_folder

    group, _, name = missing.partition("/")
    if not (config_folder() / group).is_dir() or not re.search(r"[/\\]", name):
        return None
    entry = Path(name).stem
    return ConfigError(
        group,
        f"there is no {name!r}; a group takes the name of an entry, as in {group}={entry}, and --config-dir=DIR "
        f"finds the file DIR/{group}/{entry}.yaml",
    )


def _near_entry(name: str, options: list[str]) -> str:
    """Return the entries whose first word is a word of ``name``, as h100_sxm of NVIDIA H100; else the nearest."""
    words = set(re.findall(r"[a-z0-9]+", name.lower()))
    found = [option for option in options if option.partition("_")[0] in words]
    return f"; did you mean {found[0]!r}?" if len(found) == 1 else did_you_mean(name, options)


def _broken_override(error: Any) -> ConfigError:
    override = str(error.override).removeprefix("++")
    detail = str(error.__cause__ or error.__context__ or error)
    unknown = re.search(r"Unknown function '([^']+)'", detail)
    if unknown:
        problem = f"there is no function {unknown.group(1)!r}; put a text with brackets in quotes"
        return ConfigError(override, f"not a valid override: {problem}")
    near = re.search(r"at(?: input|:)? '(.+)'", detail)
    place = f" near {near.group(1)!r}" if near and near.group(1) != "<EOF>" else ""
    rule = "expected key=value, with brackets closed and texts of special characters in quotes"
    return ConfigError(override, f"not a valid override{place}; {rule}")


def _broken_yaml(error: Any) -> HermesFlowError:
    mark = error.problem_mark or error.context_mark
    if mark is not None:
        error = _said_better(mark.name) or error
    problem = " ".join(str(error.problem or error.context).split())
    if problem == "found unhashable key":
        problem = "a key is a list or a mapping; expected a text"
    if mark is None:
        return HermesFlowError(f"a config file is not valid YAML: {problem}")
    return HermesFlowError(f"{shown_path(mark.name)}:{mark.line + 1}: not valid YAML: {problem}")


def _said_better(path: str) -> Any:
    """Return what PyYAML itself says of a file that libyaml cannot read, or None."""
    import yaml

    try:
        with Path(path).open(encoding="utf-8") as file:
            yaml.compose(file, Loader=yaml.loader.SafeLoader)
    except yaml.YAMLError as error:
        return error
    except (OSError, ValueError):
        return None
    return None


def _refused_override(key: str, error: BaseException) -> ConfigError:
    """An override of a key that does not exist: find the part that is wrong and its nearest neighbour."""
    if "/" in key:
        return ConfigError(key, f"there is no group {key!r}{did_you_mean(key, _groups())}")
    cause = error.__cause__ or error.__context__
    parent = getattr(cause, "parent_node", None)
    full = str(getattr(cause, "full_key", None) or key)
    above, _, wrong = full.rpartition(".")
    elsewhere = _entries_with(above, wrong)
    if _is_left_out(full, parent) and not (elsewhere and above == "cluster"):  # what another layout has
        return ConfigError(full, f"the file leaves it out; add it with +{full}=…")
    if elsewhere:
        return ConfigError(full, f"unknown key; it is a key of {', '.join(elsewhere)}")
    names = [str(name) for name in parent] if parent is not None and hasattr(parent, "keys") else []
    if not names and _holds_entries(above):
        return ConfigError(full, f"unknown key; {above} is empty, and +{full}=… adds to it")
    if not names:
        expected = f"; expected one, as in {above}={{…, {wrong}: …}}" if above else ""
        return ConfigError(full, f"unknown key; {above} is not a mapping{expected}")
    absent = _absent_in_pool(parent, wrong) if re.fullmatch(r"cluster\.pools\.[^.]+", above) else None
    if absent is not None:
        return ConfigError(full, absent)
    if wrong in names:  # it is a number there, and a text in an override
        return ConfigError(
            full, f"a number names it; expected a mapping for {above}, as in {above}={{{wrong}: …}}"
        )
    if key.startswith(f"{full}."):  # a number holds no key, so it was not meant
        names = [str(name) for name in parent or () if not isinstance(_given(parent, name), int | float)]
    if "overheads_of" in names and "engine" not in names:  # which every such hardware may have
        names.append("engine")
    known = (
        hint(full) or _deeper(key, parent) or did_you_mean(wrong, [name for name in names if name != "hydra"])
    )
    # What a stage or a cost model may have depends on its kind, and its file need not have all of it.
    by_kind = re.fullmatch(r"cost|pipeline\.(?:parts\.[^.]+\.)?stages\.[^.]+", above)
    add = f"; a key that the file leaves out is added with +{full}=…" if by_kind else ""
    return ConfigError(full, f"unknown key{known}{add}")


def _deeper(key: str, root: Any) -> str:
    """Return ``"; did you mean 'x'?"`` for a key whose beginning was left out, as pools.llm.count; else nothing."""
    from omegaconf import DictConfig, OmegaConf

    if "." not in key or not isinstance(root, DictConfig) or root._get_parent() is not None:
        return ""
    plain = OmegaConf.to_container(root, resolve=False)
    assert isinstance(plain, dict)
    plain.pop("hydra", None)
    path = key.split(".")
    found = list(_holding(plain, path)) or list(_holding(plain, path[:1]))
    return (
        f"; did you mean {' or '.join(repr(f'{above}.{key}') for above in found)}?"
        if 0 < len(found) <= 3
        else ""
    )


def _holding(mapping: dict[Any, Any], path: list[str]) -> Iterator[str]:
    """Yield the keys of the mappings within ``mapping`` that have a value at ``path``."""
    for name, value in mapping.items():
        if not isinstance(value, dict):
            continue
        held: Any = value
        for part in path:
            held = held.get(part, _NOTHING) if isinstance(held, dict) else _NOTHING
        if held is not _NOTHING:
            yield str(name)
        yield from (f"{name}.{below}" for below in _holding(value, path))


_NOTHING = object()


def _given(mapping: Any, name: Any) -> Any:
    node = mapping._get_node(name, validate_access=False)
    return node._value() if node is not None else None


def _is_left_out(key: str, parent: Any) -> bool:
    """Tell whether the schema knows a key that the file around ``parent`` does not have.

    What a workload or a pool may have depends on its kind, and messages of their own tell about it.
    """
    import dataclasses

    from omegaconf import DictConfig, OmegaConf

    from hermes_flow.config.replacement import type_at

    if not isinstance(parent, DictConfig):
        return False
    plain = OmegaConf.to_container(parent._get_root(), resolve=False)
    *above, name = key.split(".")
    kind = type_at(above, plain) if isinstance(plain, dict) else None
    return dataclasses.is_dataclass(kind) and name in {field.name for field in dataclasses.fields(kind)}


def _holds_entries(key: str) -> bool:
    """Whether the schema has a mapping of entries with names of one's own at ``key``, as model.mixers."""
    import typing

    from hermes_flow.config.replacement import type_at

    return typing.get_origin(type_at(key.split("."), {})) is dict


def _absent_in_pool(pool: Any, key: str) -> str | None:
    """Return why a pool cannot have a key, where its kind says so."""
    from hermes_flow.config.pools import pool_kinds

    return pool_kinds.why_absent(pool.get(pool_kinds.tag), key)


def _groups() -> list[str]:
    """Return the built-in groups, ours and those of Hydra that a user may choose from, and the other root keys."""
    folders = (path.name for path in config_folder().iterdir() if path.is_dir())
    return [*sorted(folders), "hydra/launcher", "hydra/sweeper", "output", "seed"]


def _entries_with(group: str, key: str) -> list[str]:
    """Return the built-in entries of ``group`` that have ``key``, as overrides that choose them."""
    if group not in _groups():
        return []
    return _matching(
        (config_folder() / group).glob("*.yaml"), group, re.compile(rf"^{re.escape(key)}:", re.M)
    )


def _matching(paths: Iterable[Any], group: str, pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{group}={path.stem}" for path in sorted(paths) if pattern.search(path.read_text(encoding="utf-8"))
    ]


def _clause(error: BaseException) -> str:
    """Return the first line of an error as a clause that follows a key."""
    line = str(error).strip().splitlines()[0].rstrip(".")
    if line == "Cannot merge DictConfig with ListConfig":  # so it says of both
        if type(getattr(error, "parent_node", None)).__name__ == "ListConfig":
            return "a mapping is not allowed here; expected a list, as in [a,b]"
        return "a list is not allowed here; expected a mapping, as in {key: value}"
    return line[:1].lower() + line[1:]
