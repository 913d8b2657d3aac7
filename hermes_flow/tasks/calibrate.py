"""``hermes-flow calibrate`` turns a user's measurements into a catalog entry (docs/calibration.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.tasks.verb import verbs

if TYPE_CHECKING:
    from hermes_flow.calibration.entry import Entry

_FORMS = {"shapes": "regression", "steps": "regression", "requests": "engine"}


@verbs.register("calibrate")
@dataclass(frozen=True, slots=True)
class CalibrateTask:
    """Fits ``fit`` to ``path``: a table of measured shapes or steps, or a log of requests.

    Of a table the rows count that have the values of ``where``, by column, and of a log the first ``limit`` requests.
    The entry ``name`` goes into the folder of configs ``into``, by default one in the folder of the run.
    """

    path: str
    fit: Literal["auto", "regression", "hybrid", "engine"] = "auto"
    where: dict[str, Any] = field(default_factory=dict)
    form: Literal["piecewise", "affine"] = "piecewise"
    """The form of a step that ``task.fit=regression`` fits: piecewise linear, or one straight line."""
    limit: int | None = None
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
        form = form_of(self.path, "task.path")
        fit = _FORMS[form] if self.fit == "auto" else self.fit
        if (fit == "engine") != (form == "requests"):
            kinds = {
                "shapes": "a table of shapes",
                "steps": "a table of steps",
                "requests": "a log of requests",
            }
            expected = "a log of requests" if fit == "engine" else "a table of shapes or of steps"
            raise ConfigError("task.fit", f"{fit} needs {expected}; {self.path} is {kinds[form]}")
        confs = folder / "conf" if self.into is None else Path(self.into).expanduser()
        group = "hardware" if fit == "engine" else "cost"
        path = entry_path(group, self.name, confs, overwrite=self.overwrite)
        entry = self._entry(fit, config)
        write_entry(entry, path)
        summary = {"calibration": entry.figures}
        write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", folder / "summary.json")
        command = self._command(entry, config, confs)
        return "\n".join([*entry.lines, "", *wrapped(f"{shown_path(path)}; to use it:"), command])

    def _command(self, entry: Entry, config: Config, confs: Path) -> str:
        """Return how to use the entry; an engine's figures are those of the whole deployment, which is repeated."""
        from hermes_flow.calibration.command import deployment, given, other_folders, pasted, with_defaults
        from hermes_flow.config.origin import shown_path

        words = [f"{entry.group}={self.name}"]
        if entry.group == "hardware":
            words = deployment(given(), _llm_pool(config)[0], self.name)
        words = [*other_folders(confs), *with_defaults(words, entry.use)]
        return pasted(["hermes-flow", "--config-dir", shown_path(confs), *words])

    def _entry(self, fit: str, config: Config) -> Entry:
        from hermes_flow.calibration.from_table import hybrid, regression
        from hermes_flow.cost import cost_models
        from hermes_flow.cost.fitted.tables import read_measurements
        from hermes_flow.cost.hybrid import Hybrid
        from hermes_flow.cost.roofline import Roofline

        name, pool = _llm_pool(config)
        if fit == "engine":
            from hermes_flow.calibration.from_requests import engine

            return engine(config, name, self.path, self.limit, self.name)
        measured = read_measurements(self.path, self.where, "task")
        if fit == "regression":
            return regression(measured, pool, self.form)
        model = cost_models.parse(config.cost, "cost")
        if isinstance(model, Hybrid):
            model = Roofline(model.unmeasured)
        if not isinstance(model, Roofline):
            raise ConfigError("cost", "task.fit=hybrid corrects the roofline; expected cost=roofline")
        return hybrid(measured, pool, name, model)


def _llm_pool(config: Config) -> tuple[str, LLMPool]:
    """Return the one LLM pool; raises ConfigError where there are several."""
    pools = {name: pool for name, pool in config.cluster.pools.items() if isinstance(pool, LLMPool)}
    if len(pools) != 1:
        raise ConfigError(
            "cluster.pools", f"{len(pools)} LLM pools ({', '.join(pools)}); expected one, that was measured"
        )
    return next(iter(pools.items()))
