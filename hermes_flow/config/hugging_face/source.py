"""One config.json as a mapping that knows its file, so that every error names file and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hermes_flow.errors import ConfigError

_MOST = 10**9
_MOST_LAYERS = 10_000


@dataclass(frozen=True, slots=True)
class Source:
    """The keys of a language model in ``file``: those of ``text_config``, where there is one.

    ``asked`` are the keys whose values were read, the last one last.
    """

    file: str
    keys: Mapping[str, Any]
    asked: list[str] = field(default_factory=list)

    def fault(self, name: str, problem: str) -> ConfigError:
        """Return an error that names the file and one of its keys."""
        return ConfigError(f"{self.file}: {name}", problem)

    def get(self, *names: str) -> Any:
        """Return the value of the first of these keys that is there and not null, else None."""
        for name in names:
            if self.keys.get(name) is not None:
                self.asked.append(name)
                return self.keys[name]
        return None

    def integer(self, *names: str, default: int | None = None) -> int:
        """Return a whole number above 0; raises ConfigError where it is missing without a default, or another.

        A list that gives the same number for every layer is that number.
        """
        value = self._for_all_layers(self.get(*names))
        if value is None:
            if default is not None:
                return default
            raise self.fault(names[0], "missing; expected a whole number above 0")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fault(self._named(names), f"{value!r} is not valid; expected a whole number above 0")
        most = _MOST_LAYERS if "num_hidden_layers" in names else _MOST
        if value > most:
            raise self.fault(self._named(names), f"{value:.4g} is too large; expected at most {most:,}")
        return value

    def count(self, *names: str) -> int:
        """Return a whole number, 0 where the key is missing; raises ConfigError for anything else.

        A list that gives the same number for every layer is that number.
        """
        value = self._for_all_layers(self.get(*names))
        if value is None:
            return 0
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.fault(
                self._named(names), f"{value!r} is not valid; expected a whole number, 0 or more"
            )
        if value > _MOST:
            raise self.fault(self._named(names), f"{value:.4g} is too large; expected at most {_MOST:,}")
        return value

    def _for_all_layers(self, value: Any) -> Any:
        if not isinstance(value, list) or len(value) != self.keys.get("num_hidden_layers"):
            return value
        return value[0] if all(type(each) is int and each == value[0] for each in value) else value

    def _named(self, names: tuple[str, ...]) -> str:
        """Return the key among ``names`` whose value is read."""
        return next((name for name in names if self.keys.get(name) is not None), names[0])
