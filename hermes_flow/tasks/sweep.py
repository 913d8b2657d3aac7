"""Runs a multirun so that no finished job is lost, mixed with another sweep's, or run twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hermes_flow.config.explain import user_errors
from hermes_flow.config.origin import shown_path
from hermes_flow.errors import ConfigError, HermesFlowError
from hermes_flow.report.sweep_progress import SweepProgress
from hermes_flow.runs.folder_lock import FolderLock
from hermes_flow.runs.job_list import JobList, read_job_list, sources_digest
from hermes_flow.runs.job_record import Identity, read_record
from hermes_flow.runs.result_files import (
    JOBS_FILE,
    MULTIRUN_FILE,
    drop_aside,
    job_folders,
    missing_folders,
    put_back,
    remove_if_empty,
    result_in,
    set_aside,
)
from hermes_flow.runs.settings import FolderSettings, concerns_folder, folder_settings
from hermes_flow.runs.single_run import make_folder
from hermes_flow.runs.stopping import (
    Stopped,
    heard,
    keep_interrupts,
    stopped_by,
    uninterrupted,
    workers_undisturbed,
)
from hermes_flow.runs.zipped_keys import combined, zipped_groups

if TYPE_CHECKING:
    from omegaconf import DictConfig

_DEFAULT_SUBDIR = "${hydra.job.num}"


@contextmanager
def kept_sweeps() -> Iterator[None]:
    """Let Hydra's sweepers run their jobs through SweepRun."""
    from hydra.core.plugins import Plugins

    instantiate = Plugins.instantiate_sweeper

    def kept(self: Plugins, *, hydra_context: Any, task_function: Any, config: DictConfig) -> Any:
        settings = folder_settings(config)
        sweeper = instantiate(self, hydra_context=hydra_context, task_function=task_function, config=config)
        return SweepRun(sweeper, config, settings, hydra_context.config_loader).hooked()

    Plugins.instantiate_sweeper = kept  # type: ignore[method-assign]
    try:
        yield
    finally:
        Plugins.instantiate_sweeper = instantiate  # type: ignore[method-assign]


class SweepRun:
    """One multirun: its folder, its jobs, and the sweeper of Hydra that makes and launches them.

    The jobs are known before the first one starts where the sweeper is Hydra's basic one. Then finished jobs of an
    earlier try can be left out (``sweep.resume``), and keys can vary together (``sweep.zip``).
    """

    def __init__(self, sweeper: Any, config: DictConfig, settings: FolderSettings, loader: Any) -> None:
        self._sweeper = sweeper
        self._config = config
        self._settings = settings
        self._loader = loader
        self._folder = Path(str(config.hydra.sweep.dir))
        self._groups = zipped_groups(settings.sweep.zip)
        self._list: JobList | None = None
        self._finished: set[int] = set()
        self._refused = False
        self._launches: list[str] = []  # of a launcher of another package
        self._progress: SweepProgress | None = None
        self._sweep: Callable[[list[str]], Any] = sweeper.sweep
        self._validate: Callable[[Any], None] = sweeper.validate_batch_is_legal

    def hooked(self) -> Any:
        """Return the sweeper, whose sweep is now this one."""
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        sweeper = self._sweeper
        if type(sweeper) is BasicSweeper:
            vars(sweeper)["split_arguments"] = self._jobs_of
            vars(sweeper)["validate_batch_is_legal"] = self._begin
        elif self._settings.sweep.resume or self._groups:
            key = "sweep.resume" if self._settings.sweep.resume else "sweep.zip"
            raise ConfigError(
                key, "needs the sweeper of Hydra that knows its jobs; expected hydra/sweeper=basic"
            )
        launcher = getattr(sweeper, "launcher", None)
        if launcher is not None and type(launcher) is not BasicLauncher:
            launch, launches, name = launcher.launch, self._launches, self._launcher_name()

            def undisturbed(*args: Any, **kwargs: Any) -> Any:
                launches.append(name)  # the launcher may pickle itself, and this function with it
                with workers_undisturbed():
                    return launch(*args, **kwargs)

            vars(launcher)["launch"] = undisturbed
        vars(sweeper)["sweep"] = self.run
        return sweeper

    def run(self, arguments: list[str]) -> Any:
        """Run the jobs, write the table of the sweep whatever happens, and leave with 1 if a job failed."""
        folder, settings = self._folder, self._settings
        self._refuse_swept_settings(arguments)
        verb = str(self._config.hydra.runtime.choices.get("task"))
        if verb == "report":
            raise ConfigError(
                "task", "report shows what is finished, and has no jobs of its own; leave out -m"
            )
        keep_interrupts()
        had = self._used()
        created = missing_folders(folder)
        make_folder(folder, "hydra.sweep.dir")
        began = False
        try:
            with FolderLock(folder):
                had = self._used()
                called = folder / MULTIRUN_FILE
                call = called.read_bytes() if had and settings.sweep.resume and called.exists() else None
                if had and not settings.sweep.resume:
                    set_aside(folder)
                try:
                    returned = self._run([text for text in arguments if not concerns_folder(text)])
                finally:
                    began = bool(job_folders(folder))
                    if call is not None:
                        called.write_bytes(call)
                    elif not began:
                        for name in (MULTIRUN_FILE, JOBS_FILE):
                            (folder / name).unlink(missing_ok=True)
                        put_back(folder)
                    drop_aside(folder)
        finally:
            if not began:
                remove_if_empty(created)
        return returned

    def _run(self, arguments: list[str]) -> Any:
        """Run the sweeper; print and write the table also where it is stopped."""
        stopped: BaseException | None = None
        returned = None
        try:
            returned = self._sweep(arguments)
        except BaseException as error:
            stopped = error
            heard()
        finally:
            if self._progress is not None:
                self._progress.stop()
        if stopped is not None and (self._refused or not job_folders(self._folder)):
            raise self._before_any_job(stopped)
        if not job_folders(self._folder):
            raise HermesFlowError(
                "the sweep has no jobs; a glob(…) among its overrides matches no name of its group"
            )
        with uninterrupted():
            succeeded = finish_sweep(self._folder, bool(self._config.output.report))
        if stopped is not None:
            explained = self._explained(stopped)
            if explained is stopped:
                raise stopped
            raise explained from stopped
        if not succeeded:
            sys.exit(1)
        return returned

    def _explained(self, error: BaseException) -> BaseException:
        """Return ``error`` with the way to go on; what a launcher raises is one of its own."""
        hint = self._way_on()
        interrupt = stopped_by(error)
        if interrupt is not None or isinstance(error, SystemExit):
            status = interrupt.status if isinstance(interrupt, Stopped) else 130
            words = str(interrupt) if isinstance(interrupt, Stopped) else "interrupted"
            return Stopped(f"{words}; {hint}", status)
        if isinstance(error, (HermesFlowError, *user_errors())):
            return error
        return HermesFlowError(f"{self._launcher_said(error)}\n{hint}")

    def _before_any_job(self, error: BaseException) -> BaseException:
        """Return ``error``, or one that names the launcher that raised it before a job had begun."""
        explained = stopped_by(error) is not None or isinstance(error, (HermesFlowError, *user_errors()))
        if explained or not self._launches or not isinstance(error, Exception):
            return error
        said = HermesFlowError(f"{self._launcher_said(error)}; no job has begun")
        said.__cause__ = error
        return said

    def _launcher_said(self, error: BaseException) -> str:
        said = " ".join(str(error).split()) or "it says no more"
        return f"the launcher {self._launcher_name()} stopped: {type(error).__name__}: {said[:300]}"

    def _launcher_name(self) -> str:
        return str(self._config.hydra.runtime.choices.get("hydra/launcher", "basic"))

    def _way_on(self) -> str:
        done = sum(self._is_done(job) for job in job_folders(self._folder))
        count = f" of {len(self._list.jobs)}" if self._list is not None else ""
        if self._list is not None and done == len(self._list.jobs):
            return f"all {done} jobs are finished"
        folder = shown_path(self._folder)
        return (
            f"{done}{count} jobs are finished; the same command with hydra.sweep.dir={folder} sweep.resume=true "
            "runs the others"
        )

    def _used(self) -> bool:
        """Return whether the folder holds a result; raises HermesFlowError unless it may be gone on with."""
        kind = result_in(self._folder)
        resume, overwrite = self._settings.sweep.resume, self._settings.overwrite
        if resume and overwrite:
            raise ConfigError(
                "sweep.resume", "true keeps the result that output.overwrite=true removes; give one"
            )
        if kind is None or overwrite or (kind == "a sweep" and resume):
            return kind is not None
        way = "sweep.resume=true finishes it, output.overwrite=true replaces it"
        if kind != "a sweep":
            way = "output.overwrite=true replaces it"
        raise HermesFlowError(
            f"{self._folder}: holds the result of {kind}; {way}, and hydra.sweep.dir=… names another folder"
        )

    def _refuse_swept_settings(self, arguments: list[str]) -> None:
        from hydra.core.override_parser.overrides_parser import OverridesParser

        texts = [text for text in arguments if concerns_folder(text)]
        for override in OverridesParser.create().parse_overrides(texts):
            if override.is_sweep_override():
                raise ConfigError(
                    override.get_key_element().lstrip("+"), "is of the whole sweep; give it one value"
                )

    def _jobs_of(self, overrides: list[Any], max_batch_size: int | None) -> list[list[list[str]]]:
        """Return the batches of jobs to run. Raises HermesFlowError where the folder has another sweep's."""
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

        values: dict[str, list[str]] = {}
        for override in overrides:
            values[override.get_key_element().lstrip("+")] = [
                text for batch in BasicSweeper.split_arguments([override], None) for (text,) in batch
            ]
        jobs = combined(values, self._groups)
        folders = [
            Path(source.path.removeprefix("file://"))
            for source in self._config.hydra.runtime.config_sources
            if source.schema == "file"
        ]
        self._list = JobList(_version(), sources_digest(folders), tuple(jobs))
        self._finished = self._finished_jobs() if self._settings.sweep.resume else set()
        todo = [
            [*job, f"hydra.sweep.subdir={number}"] if self._finished else list(job)
            for number, job in enumerate(jobs)
            if number not in self._finished
        ]
        if not todo:
            return []
        return [list(batch) for batch in BasicSweeper.split_overrides_to_chunks(todo, max_batch_size)]

    def _finished_jobs(self) -> set[int]:
        """Return the numbers of the jobs that have their result. Raises HermesFlowError for another sweep's."""
        earlier = read_job_list(self._folder)
        if earlier is None:
            if result_in(self._folder) is None:
                return set()
            self._refused = True
            raise HermesFlowError(f"{self._folder}: has no {JOBS_FILE}, so this sweep cannot be finished")
        assert self._list is not None
        if self._config.hydra.sweep._get_node("subdir")._value() != _DEFAULT_SUBDIR:
            raise ConfigError("hydra.sweep.subdir", f"sweep.resume=true needs the default, {_DEFAULT_SUBDIR}")
        other = self._list.difference(earlier)
        done = {}
        for number in range(len(earlier.jobs)):
            record = read_record(self._folder / str(number))
            if record is not None and record.completed:
                done[number] = record
        for number, record in done.items() if other is None else ():
            same = earlier.sources == self._list.sources and record.has_its_inputs()
            if not same and not record.is_of(self._composed(self._list.jobs[number])):
                other = f"the configuration of its job {number}, or a file that this job reads, has changed"
                break
        if other is not None:
            self._refused = True
            raise HermesFlowError(
                f"{self._folder}: holds the result of another sweep: {other}; output.overwrite=true replaces it, and "
                "hydra.sweep.dir=… names another folder"
            )
        return set(done)

    def _composed(self, overrides: Sequence[str]) -> Identity:
        from omegaconf import OmegaConf, open_dict

        config = self._loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            del config["hydra"]
        text = OmegaConf.to_yaml(config)
        return Identity(OmegaConf.to_yaml(config, resolve=True) if "${oc." in text else text)

    def _begin(self, batch: Sequence[Sequence[str]]) -> None:
        """Validate a batch as Hydra does; before the first one, write the list of jobs and watch for their ends."""
        self._validate(batch)
        if self._progress is None and self._list is not None:
            self._list.write(self._folder)
            labels = _labels(self._list.jobs)
            self._progress = SweepProgress(
                {
                    self._folder / str(number): label
                    for number, label in enumerate(labels)
                    if number not in self._finished
                },
                lambda line: print(line, flush=True),
            )
            self._progress.start()

    @staticmethod
    def _is_done(job: Path) -> bool:
        record = read_record(job)
        return record is not None and record.completed


def finish_sweep(folder: Path, report: bool = False) -> bool:
    """Print the table of the sweep, write it, and return whether every job succeeded.

    ``report`` writes ``sweep.html``, too.
    """
    from hermes_flow.metrics.sweep import collect, write_sweep
    from hermes_flow.report.sweep_table import sweep_table

    print(sweep_table(collect(folder)))
    frame = write_sweep(folder)
    if report:
        from hermes_flow.report.pages.folder import write_sweep_page

        write_sweep_page(frame, folder)
    written = "sweep.parquet, sweep.html" if report else "sweep.parquet"
    print(f"\nWritten to {shown_path(folder)}: {written} and the jobs")
    return frame["status"].to_list() == ["completed"] * len(frame)


def _labels(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Return what tells each job from the others: the overrides that vary, under short names."""
    from hermes_flow.report.sweep_table import short_names

    rows = [dict(text.lstrip("+").split("=", 1) for text in job if "=" in text) for job in jobs]
    varying = [key for key in (rows[0] if rows else {}) if len({row.get(key) for row in rows}) > 1]
    names = short_names(varying)
    return [" ".join(f"{names[key]}={row[key]}" for key in varying) for row in rows]


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("hermes-flow")
    except PackageNotFoundError:
        return "of a checkout"
