"""Reads a deployment as people have it: a command line, a YAML file of options, or values of llm-d and Dynamo."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hermes_flow.config.documents import DocumentError, read_json, read_yaml
from hermes_flow.config.folders import config_folder
from hermes_flow.deployments.exchange import leave_out_exchange
from hermes_flow.deployments.expert_backend import read_backend
from hermes_flow.deployments.flags import Flags, flags_of_mapping, parse_flags
from hermes_flow.deployments.host_memory import gather_host_memory
from hermes_flow.deployments.models import catalog_entry, model_overrides
from hermes_flow.deployments.ranks import divide_ranks
from hermes_flow.deployments.settings import ONLINE, Dialect, Value, is_off, text_of
from hermes_flow.deployments.sglang import SGLANG
from hermes_flow.deployments.sglang_states import read_states
from hermes_flow.deployments.tensorrt_llm import TENSORRT_LLM
from hermes_flow.deployments.vllm import VLLM
from hermes_flow.deployments.waits import leave_out_waits
from hermes_flow.errors import ConfigError

DIALECTS: dict[str, Dialect] = {"vllm": VLLM, "sglang": SGLANG, "trtllm": TENSORRT_LLM}
# source: vLLM, LoRAConfig: max_loras and max_lora_rank
_LORA = {"slots": 1, "rank": 16}
_FILES = ("--config", "--extra-llm-api-options")
_MARLIN = "VLLM_MXFP4_USE_MARLIN"


@dataclass(slots=True)
class Imported:
    """What was read: ``overrides`` of the configuration, ``ignored`` flags with the reason, and ``notes``."""

    overrides: dict[str, Any] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    model: str | None = None
    """The model as the deployment names it."""

    def texts(self) -> list[str]:
        """Return the overrides as words of a command line."""
        return [f"{key}={_text(value)}" for key, value in self.overrides.items()]


def read_deployment(what: str, given: str) -> Imported:
    """Return the overrides of a deployment; ``given`` is a command line, or the path of a file of it or of options.

    ``what`` is vllm, sglang, trtllm, or llm-d or dynamo for their YAML files. Raises ConfigError naming the flag.
    """
    served = None if what in ("llm-d", "dynamo") else _served(given, what)
    if served is not None:
        return served
    text, settings = _content(given)
    if what in ("llm-d", "dynamo"):
        if settings is None:
            raise ConfigError("task.path", f"is no YAML file; expected values of {what}")
        from hermes_flow.deployments.kubernetes_values import read_values

        return read_values(settings, what)
    dialect = DIALECTS[what]
    if settings is not None:
        found = read_flags(dialect, Flags(flags_of_mapping(settings, dialect.short)))
        if found.model is None and not set(found.overrides) - {"engine"}:
            names = ", ".join(str(name) for name in settings) or "nothing"
            raise ConfigError("task.path", f"has no option of {what}; it has {names}")
        return found
    return read_flags(dialect, parse_flags(text, dialect.short))


def read_flags(dialect: Dialect, flags: Flags, pool: str = "llm") -> Imported:
    """Return what the flags of one engine set in ``pool``."""
    found = Imported()
    values = {**_options_of_files(flags, dialect, found), **flags.values}
    model = next(
        (text_of(name, values.pop(name), "ORGANISATION/NAME") for name in dialect.model if name in values),
        None,
    )
    found.model = model or (flags.words[0] if flags.words else None)
    _choose_engine(dialect, found)
    _choose_model(found, pool)
    keys: dict[str, Any] = {}
    for option, value in _joined(values, dialect).items():
        flag = option
        if flag.startswith("--no-") and flag not in dialect.read and "--" + flag[5:] in dialect.read:
            flag, value = "--" + flag[5:], "true" if is_off(value) else "false"
        if value == "null" and "null" not in dialect.simulated.get(flag, ()):
            found.ignored[flag] = dialect.when_null.get(flag, "null: the engine's default")
            continue
        reading = dialect.read.get(flag)
        if reading is not None:
            read = reading(flag, value)
            keys |= read
            if not read and str(value).lower() not in ("auto", "-1", "1", "false"):
                found.ignored[flag] = f"{value}: {_undecided(flag, value)}"
            if flag in dialect.partly:
                found.ignored[flag] = dialect.unmodelled[flag]
            elif not read and flag in dialect.unmodelled:
                found.ignored[flag] = f"{value}: not modelled: {dialect.unmodelled[flag]}"
        elif str(value).lower() in dialect.simulated.get(flag, ()):
            continue
        elif flag in dialect.unmodelled or flag.partition(".")[0] in dialect.unmodelled:
            reason = dialect.unmodelled.get(flag) or dialect.unmodelled[flag.partition(".")[0]]
            off = value is False or str(value).lower() == "false"
            found.ignored[flag] = "switched off" if off else f"not modelled: {reason}"
        elif {flag, flag.replace("--no-", "--")} & dialect.without_effect:
            found.ignored.setdefault(flag, "no effect on what is simulated")
        elif flag.replace("--no-", "--") in dialect.unmodelled:
            found.ignored[flag] = "switched off"
        else:
            found.ignored[flag] = f"not known{_near(flag, dialect)}"
    _read_environment(flags.environment, keys, found, pool)
    if flags.words[1 if model is None else 0 :]:
        found.ignored[" ".join(flags.words[1 if model is None else 0 :])] = "not a flag"
    _finish(dialect, keys, found, pool)
    return found


def _undecided(flag: str, value: Value) -> str:
    """Return why a value sets no key: the checkpoint has the precision, unless weights are quantized as they load."""
    if flag == "--quantization" and str(value).lower().startswith(ONLINE):
        return "not modelled: weights that are quantized as they are loaded; set model.precision.weights"
    return "the checkpoint decides"


def _read_environment(variables: Sequence[str], keys: dict[str, Any], found: Imported, pool: str) -> None:
    """Read the one variable that is modelled, and name the others; vLLM takes it for experts in mxfp4 only."""
    for variable in variables:
        name, _, value = variable.partition("=")
        found.ignored[name] = "a variable of the environment"
        if name != _MARLIN:
            continue
        model = found.overrides.get(_model_key(pool))
        weights = catalog_entry(str(model)).get("precision", {}).get("weights") if model else None
        if not value or found.overrides.get("engine") is not None:
            continue
        if value in ("0", "False", "false"):
            found.ignored[name] = "switched off"
        elif weights == "mxfp4":
            del found.ignored[name]
            keys["model.experts.kernels"] = "marlin"
        elif model:
            found.ignored[name] = f"no effect on {model}, whose weights are in {weights}"
        else:
            found.ignored[name] = "if the experts are in mxfp4, set model.experts.kernels=marlin"


def _near(flag: str, dialect: Dialect) -> str:
    """Return the flag that ``flag`` is certainly a misspelling of: one letter away, or its letters in another order.

    Flags that are further away are other flags, for an engine has more of them than are known here.
    """
    known = (*dialect.read, *dialect.unmodelled, *dialect.without_effect, *dialect.model)
    near = [name for name in known if _one_slip(flag.replace("_", "-"), name)]
    return f"; did you mean {near[0]}?" if len(near) == 1 else ""


def _one_slip(given: str, name: str) -> bool:
    """Tell whether one letter was left out, doubled, added or changed, or two neighbours were exchanged."""
    if min(len(given), len(name)) < 8:
        return False
    same = next((i for i, pair in enumerate(zip(given, name, strict=False)) if pair[0] != pair[1]), None)
    if same is None:
        return abs(len(given) - len(name)) == 1
    ours, theirs = given[same:], name[same:]
    swapped = ours[:2] == theirs[1::-1] and ours[2:] == theirs[2:]
    return ours[1:] in (theirs, theirs[1:]) or ours == theirs[1:] or swapped


def _finish(dialect: Dialect, keys: dict[str, Any], found: Imported, pool: str) -> None:
    """Add the keys of the pool, after those that depend on each other."""
    model = found.overrides.get(_model_key(pool))
    divide_ranks(dialect.engine, keys, found.ignored, found.notes, model)
    leave_out_exchange(keys, dialect.engine, found.ignored)
    if dialect.engine == "sglang" and model is not None:
        found.notes += read_states(keys, found.ignored, str(model))
    leave_out_waits(keys, found.ignored, pool)
    of_weights = (
        "model.precision.weights" if pool == "llm" else f"cluster.pools.{pool}.model.precision.weights"
    )
    read_backend(keys, found.ignored, model, found.overrides.get(of_weights))
    _gather_adapters(keys, found)
    chosen = (
        []
        if found.overrides.get(_model_key(pool)) is None
        else [f"model={found.overrides[_model_key(pool)]}"]
    )
    note = gather_host_memory(keys, found.ignored, chosen)
    if note is not None:
        found.notes.append(note.replace("pools.llm.", f"pools.{pool}."))
    _name_limits_of_the_server(dialect, keys, found)
    tokens = keys.pop("kv_tokens", None)
    if tokens is not None:
        keys["kv_blocks"] = tokens // keys.get("block_size", 32 if dialect.engine == "tensorrt_llm" else 1)
    for key, value in keys.items():
        whole_key = key if key.startswith("model.") and pool == "llm" else f"cluster.pools.{pool}.{key}"
        found.overrides[whole_key] = value


def _gather_adapters(keys: dict[str, Any], found: Imported) -> None:
    """Put the settings of adapters into one mapping, with vLLM's defaults; they say nothing where it is off."""
    own = {key.partition(".")[2]: keys.pop(key) for key in list(keys) if key.startswith("adapters.")}
    if own.pop("on", False):
        keys["adapters"] = "{" + ", ".join(f"{key}: {value}" for key, value in {**_LORA, **own}.items()) + "}"
        found.notes.append("which adapters requests ask for is not in a command line: add workload.adapters")


def _name_limits_of_the_server(dialect: Dialect, keys: dict[str, Any], found: Imported) -> None:
    """Say which limits vLLM's server takes where a command line gives none: they depend on the GPU."""
    # source: vllm/engine/arg_utils.py, EngineArgs.get_batch_defaults, for the API server (vLLM 0.9 to 0.27)
    limits = {"max_num_seqs": "1,024, or 256", "max_num_batched_tokens": "8,192, or 2,048"}
    missing = [f"{key} {limits[key]}" for key in limits if key not in keys]
    if dialect.engine == "vllm" and missing:
        found.notes.append(
            f"vLLM's server chooses by the GPU what is not given: {'; '.join(missing)} (with less than 70 GiB, and "
            "on the A100); engine=vllm has 256 and 8,192, so set what your server logs, or "
            "engine.server_limits=by_gpu"
        )


def _options_of_files(flags: Flags, dialect: Dialect, found: Imported) -> dict[str, str | bool]:
    """Return the options of the files that flags name; a file that is not here is ignored by name."""
    options: dict[str, str | bool] = {}
    for name in _FILES:
        if name not in flags.values:
            continue
        path = Path(str(flags.values[name])).expanduser()
        if path.is_file():
            options = {**flags_of_mapping(_yaml(path), dialect.short), **options}
        else:
            found.ignored[name] = f"there is no file {path} here; its options are not read"
    return options


def _joined(values: Mapping[str, str | bool], dialect: Dialect) -> dict[str, str | bool]:
    """Return the flags with those of one JSON option joined, as vLLM takes ``--speculative-config.method mtp``.

    An option that is given as JSON, too, keeps what its parts do not give anew.
    """
    found: dict[str, str | bool] = {}
    parts: dict[str, dict[str, Any]] = {}
    for flag, value in values.items():
        base, dot, key = flag.partition(".")
        if not dot or flag in dialect.read or base not in dialect.read:
            found[flag] = value
            continue
        text = str(value)
        parts.setdefault(base, {})[key.replace("-", "_")] = int(text) if text.isdigit() else value
    for base, keys in parts.items():
        try:
            given = read_json(str(found[base])) if base in found else {}
        except DocumentError as error:
            raise ConfigError(f"task.path: {base}", error.problem) from None
        found[base] = json.dumps({**(given if isinstance(given, Mapping) else {}), **keys})
    return found


def _choose_engine(dialect: Dialect, found: Imported) -> None:
    if (config_folder() / "engine" / f"{dialect.engine}.yaml").is_file():
        if dialect.engine != "vllm":
            found.overrides["engine"] = dialect.engine
        return
    found.notes.append(f"there is no engine {dialect.engine} yet: steps are planned by the rules of vLLM")


def _model_key(pool: str) -> str:
    return "model" if pool == "llm" else f"model@cluster.pools.{pool}.model"


def _choose_model(found: Imported, pool: str) -> None:
    if found.model is None:
        found.notes.append("no model is named; add model=NAME")
        return
    overrides = model_overrides(found.model)
    if overrides is None:
        found.notes.append(
            f"{found.model} is not in the catalog; add model=path/to/its/config.json, or import it with "
            "hermes-flow import model"
        )
        return
    for key, value in overrides.items():
        inner = key if pool == "llm" or key == "model" else f"cluster.pools.{pool}.{key}"
        found.overrides[_model_key(pool) if key == "model" else inner] = value


def _content(given: str) -> tuple[str, Mapping[str, Any] | None]:
    """Return a command line as text, or the settings of a YAML or JSON file."""
    path = Path(given).expanduser()
    try:
        there = " " not in given and path.is_file()
    except OSError:
        there = False
    if not there:
        if given.endswith((".yaml", ".yml", ".json")) and " " not in given:
            raise ConfigError("task.path", f"there is no file {given}")
        return given, None
    if path.suffix in (".yaml", ".yml", ".json"):
        return "", _yaml(path)
    return path.read_text(encoding="utf-8"), None


def _served(given: str, what: str) -> Imported | None:
    """Read the one server of a Compose file or of manifests; None where ``given`` is no such file."""
    from hermes_flow.deployments.container_files import server_in

    path = Path(given).expanduser()
    if " " in given or path.suffix not in (".yaml", ".yml", ".json") or not path.is_file():
        return None
    server = _read(path, lambda text: server_in(text, what))
    if server is None:
        return None
    flags = parse_flags(server.words, DIALECTS[what].short)
    found = read_flags(DIALECTS[what], replace(flags, environment=(*flags.environment, *server.environment)))
    key = "cluster.pools.llm.count"
    if server.replicas > 1:
        found.overrides[key] = server.replicas * int(found.overrides.get(key, 1))
    return found


def _yaml(path: Path) -> Mapping[str, Any]:
    found = _read(path, read_yaml)
    if not isinstance(found, Mapping):
        raise ConfigError(str(path), "is not a mapping of options")
    return found


def _read(path: Path, reader: Callable[[str], Any]) -> Any:
    """Return what ``reader`` makes of the text of a file; raises ConfigError with the file and the line."""
    try:
        return reader(path.read_text(encoding="utf-8"))
    except DocumentError as error:
        raise ConfigError(
            str(path) if error.line is None else f"{path}:{error.line}", error.problem
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), f"cannot be read: {error}") from None


def _text(value: Any) -> str:
    words = {None: "null", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else str(value)


def words_of(arguments: Any) -> Sequence[str] | str:
    """Return the arguments of a container, given as a list or as one text."""
    if isinstance(arguments, str):
        return arguments
    return [str(argument) for argument in arguments]
