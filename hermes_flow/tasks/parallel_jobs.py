"""Runs the jobs of a sweep in this process and in others at once, for ``hydra/launcher=joblib``.

A process that starts needs about a second to import what a job needs, so that a short sweep is slower in several
processes than in one. Here this process does the jobs one after the other. Others start when that has taken
``START_AFTER_S`` of its core, and then take the jobs that are left. On a machine whose cores are busy this is later.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Future

    from hydra.core.utils import JobReturn

START_AFTER_S = 3.0
_LOOK_EVERY_S = 0.1

Job = tuple[int, Sequence[str]]


@contextmanager
def quick_joblib() -> Iterator[None]:
    """Let the launcher joblib begin in this process."""
    from hydra.core.plugins import Plugins

    as_it_was = Plugins.instantiate_launcher

    def instantiate(plugins: Plugins, *arguments: Any, **settings: Any) -> Any:
        launcher: Any = as_it_was(plugins, *arguments, **settings)
        if type(launcher).__name__ == "JoblibLauncher" and not _asks_for_more(launcher.joblib):
            launcher.launch = partial(_launch, launcher)
        return launcher

    Plugins.instantiate_launcher = instantiate  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        Plugins.instantiate_launcher = as_it_was  # type: ignore[method-assign]


def _launch(launcher: Any, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
    """Take the place of the launcher's method of this name."""
    return Jobs(launcher, list(enumerate(job_overrides, initial_job_idx))).run()


def _asks_for_more(settings: dict[str, Any]) -> bool:
    """Tell whether settings other than the number of processes are those of joblib alone."""
    from hydra_plugins.hydra_joblib_launcher.config import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
        JobLibLauncherConf,
    )

    usual = JobLibLauncherConf()
    return any(value != getattr(usual, name, None) for name, value in settings.items() if name != "n_jobs")


class Jobs:
    """The jobs of a sweep; ``run`` returns when all of them have ended."""

    def __init__(self, launcher: Any, jobs: Sequence[Job]) -> None:
        self._launcher = launcher
        self._left = deque(jobs)
        self._ended: dict[int, JobReturn] = {}
        self._failure: BaseException | None = None
        self._running = 0  # in other processes
        self._changed = threading.Condition()
        self._executor: Any = None

    def run(self) -> list[JobReturn]:
        """Do the jobs, here until others help; raises what a job or a process raised."""
        from hydra.core.singleton import Singleton
        from hydra.core.utils import setup_globals

        setup_globals()
        self._state = Singleton.get_state()
        if self._launcher.joblib["n_jobs"] != 1 and len(self._left) > 1:
            threading.Thread(target=self._start_in_time, args=[len(self._left)], daemon=True).start()
        try:
            while (job := self._take()) is not None:
                self._ended[job[0]] = _run(job, self._launcher)
            with self._changed:
                self._changed.wait_for(lambda: not self._running or self._failure is not None)
            if self._failure is not None:
                raise self._failure
        finally:
            self._stop()
        return [self._ended[number] for number in sorted(self._ended)]

    def _take(self) -> Job | None:
        with self._changed:
            return self._left.popleft() if self._left and self._failure is None else None

    def _start_in_time(self, jobs: int) -> None:
        begun = time.process_time()
        while self._left and time.process_time() - begun < START_AFTER_S:
            time.sleep(_LOOK_EVERY_S)
        if self._left:  # short sweeps need not import joblib
            from joblib import effective_n_jobs  # type: ignore[import-not-found, import-untyped, unused-ignore]

            others = min(effective_n_jobs(self._launcher.joblib["n_jobs"]), jobs) - 1
            if others:
                self._start(others)

    def _start(self, count: int) -> None:
        """Start other processes; each gets its first job when it is ready."""
        from joblib.externals.loky import (  # type: ignore[import-not-found, import-untyped, unused-ignore]
            get_reusable_executor,
        )

        with self._changed:
            if not self._left:
                return
            self._executor = get_reusable_executor(max_workers=count)
            for _ in range(count):
                self._executor.submit(_get_ready).add_done_callback(self._feed)

    def _feed(self, done: Future[Any]) -> None:
        """Keep what a process has done, and give it the next job."""
        with self._changed:
            failure = None if done.cancelled() else done.exception()
            if done.cancelled() or failure is not None:
                self._failure = self._failure or failure
            elif done.result() is not None:
                number, ended = done.result()
                self._ended[number] = ended
                self._running -= 1
            if self._left and self._failure is None and not done.cancelled():
                job = self._left.popleft()
                self._running += 1
                launcher = self._launcher
                context = (launcher.hydra_context, launcher.config, launcher.task_function, self._state)
                self._executor.submit(_run_elsewhere, job, *context).add_done_callback(self._feed)
            self._changed.notify_all()

    def _stop(self) -> None:
        """End the other processes: they have nothing to do, or nobody waits for it."""
        with self._changed:
            self._left.clear()
        if self._executor is not None:
            self._executor.shutdown(wait=True, kill_workers=True)


def _get_ready() -> None:
    """Import what every job needs."""
    import polars  # noqa: F401

    import hermes_flow.compiler.compile
    import hermes_flow.config.loading
    import hermes_flow.simulation  # noqa: F401


def _run(job: Job, launcher: Any) -> JobReturn:
    """Run a job as Hydra's launchers do."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.core.utils import run_job
    from omegaconf import open_dict

    number, overrides = job
    config = launcher.hydra_context.config_loader.load_sweep_config(launcher.config, list(overrides))
    with open_dict(config):
        config.hydra.job.id = f"{config.hydra.job.name}_{number}"
        config.hydra.job.num = number
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        return run_job(
            hydra_context=launcher.hydra_context,
            task_function=launcher.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    finally:
        HydraConfig.instance().cfg = before


def _run_elsewhere(
    job: Job, hydra_context: Any, config: Any, task_function: Any, state: Any
) -> tuple[int, JobReturn]:
    """Run a job in a process that was started for it."""
    from types import SimpleNamespace

    from hydra.core.singleton import Singleton
    from hydra.core.utils import setup_globals

    from hermes_flow.config.compose import composing

    setup_globals()
    Singleton.set_state(state)
    launcher = SimpleNamespace(hydra_context=hydra_context, config=config, task_function=task_function)
    with composing():
        return job[0], _run(job, launcher)
