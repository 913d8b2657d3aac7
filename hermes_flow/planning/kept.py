"""Keeps every simulation of a plan in a file, so that a plan that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hermes_flow.config.schema import Config, Output
from hermes_flow.errors import HermesFlowError
from hermes_flow.planning.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Kept:
    """The results of a plan's simulations, one a line of ``path``; None keeps nothing.

    Several processes may add to the file at once: each appends whole lines. A process reads the file once, before
    its first simulation, and again after ``kept_at``.
    """

    path: Path | None = None

    def verdict(self, of: tuple[object, ...], work: Callable[[], Verdict]) -> Verdict:
        """Return the verdict that is kept of a simulation, else that of ``work``, and keep it."""

        def fields() -> dict[str, Any]:
            found = work()
            return {name: getattr(found, name) for name in _VERDICT}

        kept = self.result(("verdict", *of), fields)
        return Verdict(**{**kept, "failing": tuple(kept["failing"])})

    def result(self, of: tuple[object, ...], work: Callable[[], Any]) -> Any:
        """Return the result that is kept under ``of``, else that of ``work``, which JSON can hold, and keep it."""
        if self.path is None:
            return work()
        known, key = _known(self.path), _digest(of)
        if key not in known:
            known[key] = work()
            _append(self.path, json.dumps([key, known[key]], ensure_ascii=False))
        return known[key]


_VERDICT = ("met", "sustained", "failing", "share", "requests", "rate_per_s")
NOTHING_KEPT = Kept()


def digest_of(config: Config) -> str:
    """Return a text that differs wherever two configurations give other simulations."""
    return _digest((replace(config, task={}, output=Output()),))


def copy_kept(earlier: Path, path: Path) -> None:
    """Add what an earlier plan has kept to the file at ``path``.

    Raises HermesFlowError where one of them cannot be read or written.
    """
    try:
        lines = [json.dumps(entry, ensure_ascii=False) + "\n" for entry in _entries(earlier)]
    except OSError as error:
        raise HermesFlowError(f"{earlier}: cannot be read: {error.strerror}") from error
    _write(path, "".join(lines))


def kept_at(path: Path) -> Kept:
    """Return the results that the file at ``path`` holds now, where a plan begins that adds to them."""
    _known.cache_clear()
    return Kept(path)


def _digest(parts: tuple[object, ...]) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


@cache
def _known(path: Path) -> dict[str, Any]:
    try:
        return dict(_entries(path))
    except FileNotFoundError:
        return {}


def _entries(path: Path) -> list[tuple[str, Any]]:
    """Return the whole lines of a file; a process that was killed may have left half of one."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            key, result = json.loads(line)
        except ValueError:
            continue
        found.append((key, result))
    return found


def _append(path: Path, line: str) -> None:
    # A new line first: what a killed process left halfway does not run into this one.
    _write(path, f"\n{line}\n")


def _write(path: Path, text: str) -> None:
    """Add ``text`` in one piece, so that lines of several processes do not mix."""
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)
    except OSError as error:
        raise HermesFlowError(f"{path}: cannot be written: {error.strerror}") from error
