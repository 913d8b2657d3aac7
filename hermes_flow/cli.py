"""The command line: ``hermes-flow [verb] [overrides…]``, Hydra underneath, our messages on top."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hermes_flow.errors import HermesFlowError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig

_OPTIONS_WITH_VALUE = {
    "--config-name",
    "-cn",
    "--config-dir",
    "-cd",
    "--config-path",
    "-cp",
    "--package",
    "-p",
}
_OPTIONS_WITH_VALUE |= {"--cfg", "-c"}
_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> None:
    """Run the command; leaves with status 1 after an error, 2 after a wrong verb, 130 after Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    if arguments == ["--version"]:
        from importlib.metadata import version

        print(f"hermes-flow {version('hermes-flow')}")
        return
    try:
        _run(_with_verb(arguments))
    except _WrongVerbError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", _INTERRUPTED)
    except HermesFlowError as error:
        _fail(str(error), 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


class _WrongVerbError(HermesFlowError):
    pass


def _fail(message: str, status: int) -> None:
    sys.stdout.flush()
    print(f"hermes-flow: {message}", file=sys.stderr)
    sys.exit(status)


def _with_verb(arguments: list[str]) -> list[str]:
    """Turn a leading verb into ``task=verb``; every other argument must be an option or an override."""
    from hermes_flow.config.compose import config_folder

    result: list[str] = []
    expecting_value = False
    for argument in arguments:
        bare = not (argument.startswith(("-", "~")) or "=" in argument or expecting_value)
        if bare:
            known = {path.stem for path in (config_folder() / "task").glob("*.yaml")}
            if argument not in known and "--config-dir" not in arguments and "-cd" not in arguments:
                raise _WrongVerbError(
                    f"{argument!r} is neither a verb nor an override (key=value){did_you_mean(argument, known)}"
                )
            argument = f"task={argument}"
        expecting_value = argument in _OPTIONS_WITH_VALUE
        result.append(argument)
    return result


def _run(arguments: list[str]) -> None:
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hermes_flow.config.compose import config_folder, prepared
    from hermes_flow.config.explain import explain

    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions through: they are explained here
    failures: list[HermesFlowError] = []

    def job(composed: DictConfig) -> None:
        try:
            _job(composed)
        except HermesFlowError as error:  # kept from Hydra, which would print its own words around it
            failures.append(error)

    entry = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name="config")(job)
    before = sys.argv
    sys.argv = ["hermes-flow", *prepared(arguments)]
    try:
        entry()
    except (HydraException, OmegaConfBaseException) as error:
        raise explain(error) from None
    finally:
        sys.argv = before
    if failures:
        raise failures[0]


def _job(composed: DictConfig) -> None:
    """Run one job: the whole command, or one point of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra_config = HydraConfig.get()
    folder = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode != RunMode.MULTIRUN:
        print(_do(composed, folder))
        print(f"\nWritten to {_relative(folder)}")
        return
    from hermes_flow.tasks.sweep import finish_sweep, job_line, record_failure

    number = int(hydra_config.job.num)
    overrides = [override.lstrip("+") for override in hydra_config.overrides.task]
    try:
        _do(composed, folder)
    except KeyboardInterrupt:
        record_failure(folder, HermesFlowError("interrupted"))
        finish_sweep(Path(hydra_config.sweep.dir))
        raise
    except Exception as error:  # one job must not take the others with it
        record_failure(folder, error)
        print(job_line(number, overrides, f"failed: {str(error).splitlines()[0]}"), flush=True)
    else:
        print(job_line(number, overrides, "done"), flush=True)


def _do(composed: DictConfig, folder: Path) -> str:
    from hydra.core.hydra_config import HydraConfig

    from hermes_flow.config.compose import to_config
    from hermes_flow.tasks import verbs

    config = to_config(composed, list(HydraConfig.get().overrides.task))
    return verbs.parse(config.task, "task").run(config, folder)


def _relative(folder: Path) -> str:
    try:
        return str(folder.relative_to(Path.cwd()))
    except ValueError:
        return str(folder)
