"""``hermes-flow calibrate`` turns a user's measurements into a catalog entry (docs/calibration.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hermes_flow.config.quantities import RequestCount
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError, did_you_mean
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.tasks.verb import verbs

if TYPE_CHECKING:
    from hermes_flow.calibration.entry import Entry

_FORMS = {"shapes": "regression", "steps": "regression", "requests": "engine"}


@verbs.register("calibrate")
@dataclass(frozen=True, slots=True)
class CalibrateTask:
    """Fits ``fit`` to ``path``: tables of measured shapes or steps, or logs of requests.

    Of a table the rows count that have the values of ``where``, by column, and of a log the first ``limit`` requests.
    The entry ``name`` goes into the folder of configs ``into``, by default one in the folder of the run.
    """

    path: tuple[str, ...] | str
    """A table of measured shapes or steps, a log of requests, or several files of one kind."""
    fit: Literal["auto", "regression", "hybrid", "engine"] = "auto"
    where: dict[str, Any] = field(default_factory=dict)
    form: Literal["piecewise", "affine"] = "piecewise"
    """The form of a step that ``task.fit=regression`` fits: piecewise linear, or one straight line."""
    limit: RequestCount | None = None
    pool: str | None = None
    """The LLM pool that was measured, where the cluster has several."""
    requests: str | None = None
    """A log of requests beside a table of steps, from which the ingest time is fitted."""
    carry_to: tuple[str, ...] | str | None = None
    """Other hardware that gets the fitted overheads of an engine in an entry of its own."""
    name: str = "calibrated"
    into: str | None = None
    overwrite: bool = False
    """True replaces an entry of the same name."""

    def run(self, config: Config, folder: Path) -> str:
        """Fit, write the entry, and return its errors and the command that uses it."""
        from hermes_flow.calibration.entry import entry_path, wrapped, write_entry
        from hermes_flow.config.origin import shown_path
        from hermes_flow.cost.fitted.tables import form_of
        from hermes_flow.metrics.files import write_text

        if self.limit is not None and self.limit < 1:
            raise ConfigError("task.limit", f"{self.limit}; expected 1 or more, or null")
        paths = [self.path] if isinstance(self.path, str) else list(self.path)
        if not paths:
            raise ConfigError("task.path", "no files; expected a table, or a log of requests")
        form = form_of(paths[0], "task.path")
        fit = _FORMS[form] if self.fit == "auto" else self.fit
        if (fit == "engine") != (form == "requests"):
            kinds = {
                "shapes": "a table of shapes",
                "steps": "a table of steps",
                "requests": "a log of requests",
            }
            expected = "a log of requests" if fit == "engine" else "a table of shapes or of steps"
            raise ConfigError("task.fit", f"{fit} needs {expected}; {paths[0]} is {kinds[form]}")
        for key, of in (("carry_to", "engine"), ("requests", "regression")):
            if getattr(self, key) is not None and fit != of:
                raise ConfigError(f"task.{key}", f"does not go with task.fit={fit}; it needs {of}")
        confs = folder / "conf" if self.into is None else Path(self.into).expanduser()
        group = "hardware" if fit == "engine" else "cost"
        path = entry_path(group, self.name, confs, overwrite=self.overwrite)
        carried = self._carried()
        others = {
            hardware: entry_path(group, f"{self.name}_{hardware}", confs, overwrite=self.overwrite)
            for hardware in carried
        }
        entry = self._entry(fit, config, paths)
        write_entry(entry, path)
        for hardware, other in others.items():
            write_entry(replace(entry, text=entry.carried[hardware]), other)
        summary = {"calibration": entry.figures}
        write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", folder / "summary.json")
        command = self._command(entry, config, confs)
        more = [
            line for other in others.values() for line in wrapped(f"{shown_path(other)}; the same overheads")
        ]
        return "\n".join([*entry.lines, "", *more, *wrapped(f"{shown_path(path)}; to use it:"), command])

    def _carried(self) -> list[str]:
        """Return the hardware that the overheads are carried to; raises ConfigError where there is no such file."""
        from hermes_flow.calibration.entry import require_hardware

        given = [self.carry_to] if isinstance(self.carry_to, str) else list(self.carry_to or ())
        for hardware in given:
            require_hardware(hardware)
        return given

    def _command(self, entry: Entry, config: Config, confs: Path) -> str:
        """Return how to use the entry; an engine's figures are those of the whole deployment, which is repeated."""
        from hermes_flow.calibration.command import deployment, given, other_folders, pasted, with_defaults
        from hermes_flow.config.origin import shown_path

        words = [f"{entry.group}={self.name}"]
        pool = _llm_pool(config, self.pool)[0]
        if entry.group == "hardware":
            words = deployment(given(), pool, self.name, own=self.pool is not None)
        elif self.pool is not None:
            words = [f"+cost@cluster.pools.{pool}.cost={self.name}", *given()]
        own = entry.group == "cost" and self.pool is not None
        words = [*other_folders(confs), *(words if own else with_defaults(words, entry.use))]
        return pasted(["hermes-flow", "--config-dir", shown_path(confs), *words])

    def _entry(self, fit: str, config: Config, paths: list[str]) -> Entry:
        from hermes_flow.calibration.from_table import hybrid, regression
        from hermes_flow.cost import cost_models
        from hermes_flow.cost.fitted.tables import read_measurements
        from hermes_flow.cost.hybrid import Hybrid
        from hermes_flow.cost.roofline import Roofline

        name, pool = _llm_pool(config, self.pool)
        if fit == "engine":
            from hermes_flow.calibration.from_requests import engine

            return engine(config, name, paths, self.limit, self.name, self._carried())
        measured = read_measurements(paths, self.where, "task")
        if fit == "regression":
            found = regression(measured, pool, name, self.form)
            if self.requests is None:
                return found
            from hermes_flow.calibration.ingest import with_ingest

            return with_ingest(found, config, name, self.requests, self.limit)
        model = cost_models.parse(config.cost, "cost")
        if isinstance(model, Hybrid):
            model = Roofline(model.unmeasured)
        if not isinstance(model, Roofline):
            raise ConfigError("cost", "task.fit=hybrid corrects the roofline; expected cost=roofline")
        return hybrid(measured, pool, name, model)


def _llm_pool(config: Config, chosen: str | None) -> tuple[str, LLMPool]:
    """Return the chosen LLM pool, or the only one; raises ConfigError where there are several and none is chosen."""
    pools = {name: pool for name, pool in config.cluster.pools.items() if isinstance(pool, LLMPool)}
    if chosen is not None:
        if chosen not in pools:
            raise ConfigError("task.pool", f"{chosen!r} is no LLM pool{did_you_mean(chosen, pools)}")
        return chosen, pools[chosen]
    if len(pools) != 1:
        raise ConfigError(
            "task.pool",
            f"null, and the cluster has {len(pools)} LLM pools ({', '.join(pools)}); expected the one "
            "that was measured",
        )
    return next(iter(pools.items()))
