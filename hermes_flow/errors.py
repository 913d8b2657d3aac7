"""The errors of hermes_flow. Users can correct most of them; the command prints them without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class HermesFlowError(Exception):
    """The base of every error of hermes_flow: a user's mistake, or (InternalError) a fault of hermes_flow."""


class InternalError(HermesFlowError):
    """A fault of hermes_flow or of a plug-in, not of any setting. ``problem`` describes the observation."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"internal error: {problem}. No setting of yours is wrong. If no plug-in is at fault, please report it "
            "together with the config of the run (.hydra/config.yaml)."
        )


class PluginError(HermesFlowError):
    """An error in the code of a user's plug-in: it has the plug-in, the error, and the file and line.

    ``what`` names the plug-in or what it registers, ``said`` is the error; ``place`` is where it was raised ("" where
    that is not known). ``__cause__`` is the error itself.
    """

    def __init__(
        self,
        what: str,
        said: str,
        file: str | None = None,
        line: int | None = None,
        function: str | None = None,
    ) -> None:
        self.what = what
        self.said = said
        inside = "" if function is None or function.startswith("<") else f", in {function}"
        self.place = "" if file is None else f"{file}:{line}{inside}"
        where = f"{self.place} (HYDRA_FULL_ERROR=1 shows the traceback)" if self.place else ""
        super().__init__(f"{what} failed: {said}" + (f"\n  {where}" if where else ""))


class ConfigError(HermesFlowError):
    """A config key is unknown, missing or has a wrong value.

    ``key`` is the full dotted key. ``problem`` is a clause that follows it.
    """

    def __init__(self, key: str, problem: str) -> None:
        self.key = key
        self.problem = problem
        super().__init__(f"{key}: {problem}")


class CompileError(HermesFlowError):
    """The config is well formed but does not describe a system that can run; lists every problem found."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  - {problem}" for problem in self.problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} found:\n{lines}")


class TraceError(HermesFlowError):
    """A workload trace cannot be read; names the file and, where known, the line (the header is line 1)."""

    def __init__(self, path: str, line: int | None, problem: str) -> None:
        self.path = path
        self.line = line
        self.problem = problem
        where = path if line is None else f"{path}:{line}"
        super().__init__(f"{where}: {problem}")


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest valid name, or all names if none is near."""
    names = sorted(str(entry) for entry in valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    if not names:
        return ""
    shown = ", ".join(names[:24]) + (", …" if len(names) > 24 else "")
    return f"; expected one of: {shown}"
