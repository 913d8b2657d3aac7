"""The errors of hermes_flow. Users can correct most of them; the command prints them without a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class HermesFlowError(Exception):
    """The base of every error of hermes_flow: a user's mistake, or (InternalError) a fault of hermes_flow."""


class CheckError(HermesFlowError):
    """A check ended and did not hold, or not for all of its cases; its results are written and stay."""


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
    """The config is well formed but does not describe a system that can run; lists every problem found, once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(dict.fromkeys(problems))
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
    near = nearest(name, names)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    if not names:
        return ""
    shown = ", ".join(names[:24]) + (", …" if len(names) > 24 else "")
    return f"; expected one of: {shown}"


def reason(error: BaseException) -> str:
    """Return what an error says, without the number and the path that an OSError puts around it."""
    return str(getattr(error, "strerror", None) or error)


def nearest(name: str, names: Sequence[str]) -> list[str]:
    """Return the names that ``name`` may be a spelling of: at most three, and none rather than another thing.

    A name may be the beginning of another, also without the b of billions: ``llama3_70`` is ``llama3_70b``.
    Names with other numbers are other things, and so are those with other letters beside a number, if they are few:
    ``gh200`` is neither ``gb200`` nor ``h200_sxm``, and ``fp4`` is not ``fp8``.
    """
    plain = _plain(name)
    same = [each for each in names if _plain(each) == plain]
    if same:
        return same[:1]
    if any(letter.isdigit() for letter in plain):
        begun = [each for each in names if re.match(rf"{re.escape(name.lower())}b?(?:_|$)", each)]
        ended = [each for each in names if re.fullmatch(rf"[a-z]{{2}}{re.escape(plain)}", each)]
        if 0 < len(begun or ended) <= 3:
            return begun or ended
    alike = [each for each in names if _may_be(name, each)]
    begun = [
        each for each in alike if each[:1].lower() == name[:1].lower()
    ]  # first letters are seldom mistyped
    return difflib.get_close_matches(name, begun, n=1, cutoff=0.6) or difflib.get_close_matches(
        name, alike, n=1, cutoff=0.75
    )


def _may_be(name: str, other: str) -> bool:
    """Whether two names have the same numbers, and the same letters beside them where these are one or two."""
    ours, theirs = (re.findall(r"([a-z]*)([0-9]+)([a-z]*)", each.lower()) for each in (name, other))
    return len(ours) == len(theirs) and all(
        number == their
        and (before == near or min(len(before), len(near)) > 2)
        and (after == behind or min(len(after), len(behind)) > 2)
        for (before, number, after), (near, their, behind) in zip(ours, theirs, strict=True)
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
