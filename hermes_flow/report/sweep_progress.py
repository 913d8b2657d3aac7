"""Prints a line when a job of a sweep ends, with the number of jobs that ended and an estimate of the time left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from hermes_flow.metrics.number_text import shortened
from hermes_flow.runs.job_record import JobRecord, read_record

_WIDTH = 80
_LINES = 2
_INTERVAL_S = 0.25
_SHARE = 0.05  # of one core that looking for finished jobs may take


class SweepProgress:
    """Watches the folders of a sweep's jobs, whichever process runs them, from ``start`` to ``stop``.

    ``labels`` has the text that describes each job that is to run, by the job's folder.
    """

    def __init__(self, labels: Mapping[Path, str], show: Callable[[str], None]) -> None:
        self._waiting = dict(labels)
        self._earlier = {
            folder: read_record(folder) for folder in labels
        }  # of jobs that failed and run again
        self._count = len(labels)
        self._show = show
        self._ended = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="sweep-progress", daemon=True)
        self._began = time.monotonic()

    def start(self) -> None:
        """Start to watch, in a thread."""
        self._began = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """End watching, and print the lines that are still due."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._look()

    def _watch(self) -> None:
        wait = _INTERVAL_S
        while not self._stopped.wait(wait):
            began = time.thread_time()
            self._look()
            wait = max(_INTERVAL_S, (time.thread_time() - began) / _SHARE)

    def _look(self) -> None:
        for folder in list(self._waiting):
            record = read_record(folder)
            if record is not None and record != self._earlier[folder]:
                self._ended += 1
                seconds = time.monotonic() - self._began
                left = seconds / self._ended * (self._count - self._ended)
                self._show(
                    ended_line(folder.name, self._waiting.pop(folder), record, self._ended, self._count, left)
                )


def ended_line(name: str, label: str, record: JobRecord, ended: int, count: int, left_s: float) -> str:
    """Return the text for a job that ended, in at most two lines: how, how many ended, and the time left.

    The first job of several at once tells too little for an estimate.
    """
    how = "done" if record.completed else "failed"
    left = f", about {time_left(left_s)} left" if 1 < ended < count else ""
    text = f"job {name} {how} ({ended} of {count}{left})"
    if label:
        text += f": {shortened(label, _WIDTH)}" if record.problem else f": {label}"
    if record.problem:
        text += f": {record.problem}"
    return cut(text)


def cut(text: str) -> str:
    """Return ``text`` in at most two lines of the terminal's usual width; what does not fit becomes "…"."""
    words, lines = text.split(), [""]
    for word in words:
        longer = f"{lines[-1]} {word}" if lines[-1].strip() else f"{lines[-1]}{word}"
        if len(longer) <= _WIDTH or not lines[-1].strip():
            lines[-1] = longer[:_WIDTH]
        elif len(lines) < _LINES:
            lines.append("  " + word[: _WIDTH - 2])
        else:
            lines[-1] = lines[-1][: _WIDTH - 2].rstrip() + " …"
            break
    return "\n".join(lines)


def time_left(seconds: float) -> str:
    """Return a time to wait in words, coarsely: ``40 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
