"""Finds the mistakes of a sweep's jobs before the first one starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hermes_flow.config.explain import explain, user_errors
from hermes_flow.errors import ConfigError, HermesFlowError


@contextmanager
def quick_validation() -> Iterator[None]:
    """Let Hydra validate the common part of a sweep's jobs once, instead of each job.

    Hydra composes every job before the first one starts, to find mistakes early, and again when it starts.
    Whether a job composes depends on the choices from config groups and on the keys that it sets, also in a mapping,
    but not on plain values.
    """
    from hydra.plugins.sweeper import Sweeper

    validate_all = Sweeper.validate_batch_is_legal

    def validate(self: Sweeper, batch: Sequence[Sequence[str]]) -> None:
        assert self.hydra_context is not None
        groups = self.hydra_context.config_loader.get_group_options
        distinct: dict[tuple[str, ...], Sequence[str]] = {}
        known: dict[str, bool] = {}
        for overrides in batch:
            shape = []
            for override in overrides:
                key, _, value = override.partition("=")
                if key not in known:
                    known[key] = bool(groups(key.lstrip("+~").split("@")[0]))
                plain = not known[key] and value[:1] not in ("{", "[") and value != "null"
                shape.append(key if plain else override)
            distinct.setdefault(tuple(shape), overrides)

        def fault(overrides: Sequence[str]) -> HermesFlowError | None:
            try:
                validate_all(self, [overrides])
            except user_errors() as error:
                return explain(error, overrides)
            return None

        for choices, overrides in distinct.items():
            found = fault(overrides)
            if found is not None:
                sound = [other for other, job in distinct.items() if fault(job) is None]
                raise _with_choices(found, choices, sound)

    Sweeper.validate_batch_is_legal = validate  # type: ignore[method-assign]
    try:
        yield
    finally:
        Sweeper.validate_batch_is_legal = validate_all  # type: ignore[method-assign]


def _with_choices(
    error: HermesFlowError, choices: Sequence[str], sound: Sequence[Sequence[str]]
) -> HermesFlowError:
    """Return ``error`` with the choices of its jobs, where jobs with other ones are ``sound``."""
    own = [text for text in choices if "=" in text and any(text not in other for other in sound)]
    if not own or not isinstance(error, ConfigError) or error.key in [text.partition("=")[0] for text in own]:
        return error
    return ConfigError(error.key, f"{error.problem} (in the jobs with {' and '.join(own)})")
