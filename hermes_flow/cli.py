"""The command line: it runs Hydra and replaces Hydra's error messages by our own."""

from __future__ import annotations

import io
import os
import sys
import textwrap
import traceback
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.errors import HermesFlowError, PluginError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

_WIDTH = 80
_INTERRUPTED = 130
# Hydra's own; abbreviated ones are left to it.
_WITH_VALUE = ["--config-name", "--config-dir", "--config-path", "--package", "--cfg", "-cn", "-cd", "-cp"]
_WITH_VALUE += ["-p", "-c", "--info", "-i"]
_OPTIONS = ["--help", "--hydra-help", "--resolve", "--run", "--multirun", "--shell-completion"]
# Verbs that are followed by words rather than by keys alone, and the keys of ``task`` that these words are. A key
# with three points takes all words that are left, as a list.
_WITH_WORDS = {"import": ("what", "path"), "report": ("folder",), "compare": ("runs...",)}
_IN_QUOTES = "the command line of an engine stands in quotes, as in hermes-flow import vllm 'vllm serve …'"
_OPTIONS += ["--experimental-rerun", "-h", "-r", "-m", "-sc", *_WITH_VALUE]


def main(argv: list[str] | None = None) -> None:
    """Run the command; leaves with status 1 after an error, 2 after a wrong call, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign shows a question mark
    tracebacks = os.environ.get("HYDRA_FULL_ERROR") == "1"
    if "--version" in arguments:
        print(f"hermes-flow {_version()}, {_core()}")
        return
    if {"-sc", "--shell-completion"} & set(arguments) and any(
        each.startswith("query=") for each in arguments
    ):
        _complete(arguments)
        return
    try:
        arguments = _with_verb(arguments)
        text = _quick_help(arguments)
        if text is None:
            _run(arguments)
        else:
            print(_wrapped(text).strip())
        sys.stdout.flush()  # here, where a full disk or a closed pipe still has an answer
    except _UsageError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt as error:
        if so_far := getattr(error, "so_far", ""):
            print(f"{so_far}\n")
        _fail(str(error) or "interrupted", getattr(error, "status", _INTERRUPTED))
    except BrokenPipeError:
        _drop_output()
        sys.exit(1)
    except Exception as error:
        if tracebacks:
            traceback.print_exception(error)
        _fail_by(error)


def _complete(arguments: list[str]) -> None:
    """Print what may come next on the line that a shell gives; nothing where the line is wrong so far."""
    from hermes_flow.config.completion import with_verb
    from hermes_flow.config.folders import config_folder

    verbs = [path.stem for path in (config_folder() / "task").glob("*.yaml")]
    os.environ["COMP_LINE"], offered = with_verb(os.environ.get("COMP_LINE", "hermes-flow "), verbs)
    if offered:
        print("\n".join(offered))
    with suppress(HermesFlowError):
        _run(arguments)


def _fail_by(error: Exception) -> None:
    """Leave with the message of what went wrong."""
    from hermes_flow.runs.stopping import stopped_by

    interrupt = stopped_by(error)
    if interrupt is not None:  # Python or a library has made another error of it
        _fail(str(interrupt) or "interrupted", getattr(interrupt, "status", _INTERRUPTED))
    if isinstance(error, HermesFlowError):
        from hermes_flow.runs.job import message_of

        _fail(message_of(error), 1, width=None if isinstance(error, PluginError) else _WIDTH)
    if isinstance(error, OSError):  # the standard output or a file of Hydra's: a full disk, or no permission
        from hermes_flow.config.explain import closed_path

        place = closed_path(error) if error.filename else "the output"
        _fail(f"{place}: {error.strerror or error}", 1)
    from hermes_flow.internal_errors import fault_message

    _fail(fault_message(error), 1, width=None)


class _UsageError(HermesFlowError):
    pass


def _quick_help(arguments: list[str]) -> str | None:
    """Return the help that ``arguments`` ask for, or None where Hydra has to look at them first."""
    if not {"--help", "-h"} & set(arguments):
        return None
    from hermes_flow.config.help_text import help_text

    return help_text(arguments)


def _fail(message: str, status: int, width: int | None = _WIDTH) -> None:
    try:
        sys.stdout.flush()
    except OSError:
        _drop_output()
    text = f"hermes-flow: {message}"
    print(text if width is None else _wrapped(text), file=sys.stderr)
    sys.exit(status)


def _drop_output() -> None:
    """Let what is still to be written to the standard output go nowhere: nobody can take it."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hermes-flow")
    except PackageNotFoundError:
        return "(a checkout that is not installed)"


def _core() -> str:
    """Return which core runs: the Python source, or the C modules that were made of it (compile_core.py)."""
    from importlib.util import find_spec

    found = find_spec("hermes_flow.machine.engine")
    pure = found is None or str(found.origin).endswith(".py")
    return "core in pure Python" if pure else "compiled core"


def _wrapped(text: str) -> str:
    """Return ``text`` in lines of at most 80 columns, words left whole; what is cut hangs below its line."""
    lines = []
    for line in text.splitlines():
        start = len(line) - len(line.lstrip(" -"))
        indent = " " * (start or 2)
        lines += textwrap.wrap(
            line, _WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return "\n".join(lines)


def _with_verb(arguments: list[str]) -> list[str]:
    """Turn the verb into ``task=verb`` and put options before overrides, as Hydra wants them."""
    from hermes_flow.config.folders import config_folder

    known = [path.stem for path in (config_folder() / "task").glob("*.yaml")]
    own_folder = any(argument.split("=")[0] in ("--config-dir", "-cd") for argument in arguments)
    options: list[str] = []
    overrides: list[str] = []
    verb: str | None = None
    expecting_value = False
    said: list[str] = []
    for argument in arguments:
        if expecting_value:
            expecting_value = False
            options.append(argument)
        elif argument.startswith("-"):
            name = argument.split("=")[0]
            if not any(option.startswith(name) for option in _OPTIONS) or name in ("-", "--"):
                raise _UsageError(
                    f"there is no option {name!r}; settings are key=value, see hermes-flow --help{_hint(verb)}"
                )
            expecting_value = argument in _WITH_VALUE
            options.append(argument)
        elif argument.startswith("="):
            raise _UsageError(f"{argument!r} has no key; expected key=value")
        elif ("=" not in argument or _is_command(verb, argument)) and not argument.startswith("~"):
            if verb in _WITH_WORDS:
                said.append(argument)
                continue
            if argument not in known and not own_folder:
                problem = f"{argument!r} is neither a verb nor an override (key=value)"
                raise _UsageError(problem + did_you_mean(argument, known))
            if verb is not None:
                raise _UsageError(f"{verb!r} and {argument!r} are two verbs; expected one")
            verb = argument
            overrides.append(f"task={verb}")
        else:
            overrides.append(argument)
    return options + overrides + _words_as_keys(verb, said)


def _hint(verb: str | None) -> str:
    return f"; {_IN_QUOTES}" if verb == "import" else ""


def _is_command(verb: str | None, argument: str) -> bool:
    """Whether a word is the command line of an engine, whose flags have = signs of their own."""
    return verb == "import" and " -" in argument


def _words_as_keys(verb: str | None, said: list[str]) -> list[str]:
    """Return the words that follow a verb as overrides of its keys."""
    places = _WITH_WORDS.get(verb or "", ())
    overrides: list[str] = []
    for index, name in enumerate(places):
        if name.endswith("...") and said[index:]:
            listed = ",".join(_quoted(word) for word in said[index:])
            return [*overrides, f"task.{name.removesuffix('...')}=[{listed}]"]
        if index < len(said) and not name.endswith("..."):
            overrides.append(f"task.{name}={_quoted(said[index])}")
    if verb == "import" and said and " " in said[0]:
        raise _UsageError(f"{said[0]!r} has no kind before it; {_IN_QUOTES}")
    if len(said) > len(places):
        form = " ".join([verb or "", *(name.upper() for name in places)])
        raise _UsageError(
            f"{said[len(places)]!r} is one word too many; expected hermes-flow {form}{_hint(verb)}"
        )
    return overrides


def _quoted(word: str) -> str:
    """Return a word as Hydra's grammar takes it: in quotes where it has more than the characters of a path."""
    if word and all(letter.isalnum() or letter in "_-./" for letter in word):
        return word
    return "'" + word.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _run(arguments: list[str]) -> None:
    import hydra

    from hermes_flow.config.compose import composing
    from hermes_flow.config.explain import explain, user_errors
    from hermes_flow.config.folders import config_folder
    from hermes_flow.runs.single_run import guarded_runs
    from hermes_flow.runs.stopping import stoppable, stopped_by
    from hermes_flow.tasks.parallel_jobs import quick_joblib
    from hermes_flow.tasks.sweep import kept_sweeps
    from hermes_flow.tasks.sweep_validation import quick_validation

    asked = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: they are explained here
    failures: list[Exception] = []
    said: list[str] = []

    def job(composed: DictConfig) -> None:
        try:
            said.extend(_job(composed))
        except Exception as error:  # kept from Hydra, which would print its own words around it
            interrupt = stopped_by(error)
            if interrupt is not None:
                raise interrupt from None
            failures.append(error)

    entry = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)
    stopping: tuple[type[BaseException], ...] = (KeyboardInterrupt, *user_errors())
    before = sys.argv
    sys.argv = ["hermes-flow", *arguments]
    try:
        with (
            stoppable(),
            composing(),
            quick_validation(),
            guarded_runs(lambda: failures[0] if failures else None),
            kept_sweeps(),
            quick_joblib(),
        ):
            if {"--help", "-h"} & set(arguments):
                _print_help(entry)
            else:
                entry()
    except BrokenPipeError:
        raise
    except stopping as error:
        from hermes_flow.config.own_entries import with_own_entry

        raise (stopped_by(error) or with_own_entry(explain(error, arguments), arguments)) from None
    finally:
        sys.argv = before
        if asked is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = asked
    if failures:
        raise failures[0]
    for (
        text
    ) in said:  # now that the result is kept: a reader that has gone, as in "| head", takes nothing away
        print(text)


def _print_help(entry: object) -> None:
    """Print what ``entry`` prints, in lines of the terminal's usual width."""
    assert callable(entry)
    text = io.StringIO()
    try:
        with redirect_stdout(text):
            entry()
    finally:
        print(_wrapped(text.getvalue()).strip())


def _job(composed: DictConfig) -> list[str]:
    """Run one job, the whole command or one point of a sweep; return what is still to be printed."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode != RunMode.MULTIRUN:
        return [_do(composed, folder)]
    from hermes_flow.runs.job import run_job

    run_job(folder, composed, lambda: _do(composed, folder))
    return []


def _do(composed: DictConfig, folder: Path) -> str:
    from hydra.core.hydra_config import HydraConfig

    from hermes_flow.config.compose import to_config
    from hermes_flow.config.origin import origins, shown_path
    from hermes_flow.config.plugin_faults import plugin_fault
    from hermes_flow.tasks import verbs

    hydra_config = HydraConfig.get()
    overrides = _overrides(hydra_config)
    found = origins(hydra_config, overrides)
    try:
        config = to_config(composed, [*found.file_keys(), *overrides], found)
        verb = verbs.parse(config.task, "task")
        text = verb.run(config, folder)
        if getattr(verb, "elsewhere", False):
            with suppress(OSError):
                folder.rmdir()  # Hydra has made it, and nothing went into it
            return text
        return f"{text}\n\nWritten to {shown_path(folder)}"
    except Exception as error:
        fault = plugin_fault(error)
        if fault is error:
            raise
        if fault is not None:
            raise fault from error
        if isinstance(error, HermesFlowError):
            raise found.explained(error) from None
        raise


def _overrides(hydra_config: object) -> list[str]:
    """Return the job's overrides as they were written, interpolations unresolved."""
    from omegaconf import OmegaConf

    texts = OmegaConf.to_container(OmegaConf.select(hydra_config, "overrides.task"), resolve=False)  # type: ignore[arg-type]
    assert isinstance(texts, list)
    return texts
