# ruff: noqa: N999
"""``hermes-flow import`` reads a model or a deployment of other tools (docs/models.md, docs/deployments.md)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hermes_flow.config.schema import Config
from hermes_flow.tasks.verb import verbs


@verbs.register("import")
@dataclass(frozen=True, slots=True)
class ImportTask:
    """Reads ``path`` and writes the entry ``name`` into the folder of configs ``into``.

    ``into`` is by default a folder in that of the run.
    """

    what: Literal["model", "vllm", "sglang", "trtllm", "llm-d", "dynamo"]
    """What is imported: a model's config.json of Hugging Face, the command line of an engine, or values of llm-d or
    Dynamo.
    """
    path: str
    """The file, the folder that holds it, or the command line itself in quotes."""
    name: str | None = None
    """The name of the entry; null takes that of the file, of its folder, or of the model."""
    model_kind: Literal["decoder", "encoder"] | None = None
    """Whether the model writes or embeds; null takes what its files say."""
    into: str | None = None
    """The folder of configs; null takes conf in the folder of the run."""
    overwrite: bool = False
    """True replaces an entry of the same name."""

    def run(self, config: Config, folder: Path) -> str:
        """Write the entry, and return its main figures and how to use it."""
        confs = folder / "conf" if self.into is None else Path(self.into).expanduser()
        return self._model(confs) if self.what == "model" else self._deployment(confs)

    def _deployment(self, confs: Path) -> str:
        """Write an experiment with the overrides of a deployment, and say which flags are left out."""
        from hermes_flow.calibration.command import pasted
        from hermes_flow.calibration.entry import Entry, entry_path, wrapped, write_entry
        from hermes_flow.config.hugging_face.read import name_of
        from hermes_flow.config.origin import shown_path
        from hermes_flow.deployments import read_deployment
        from hermes_flow.deployments.experiment import experiment_text

        found = read_deployment(self.what, self.path)
        name = self.name or name_of(Path(f"{found.model or self.what}.json".replace("/", "--")))
        path = entry_path("experiment", name, confs, overwrite=self.overwrite)
        write_entry(Entry("experiment", experiment_text(found, self.what, self.path), ()), path)
        lines = [line for note in found.notes for line in wrapped(f"note: {note}")]
        lines += [line for flag, why in found.ignored.items() for line in wrapped(f"ignored: {flag}, {why}")]
        command = pasted(["hermes-flow", "--config-dir", shown_path(confs), f"experiment={name}"])
        return "\n".join(
            [
                *lines,
                *([""] if lines else []),
                "Overrides:",
                pasted(found.texts()),
                "",
                *wrapped(f"{shown_path(path)} has them; to use it, with the hardware that you have:"),
                command,
            ]
        )

    def _model(self, confs: Path) -> str:
        """Write the catalog entry of a model, and return its size."""
        from hermes_flow.calibration.command import pasted
        from hermes_flow.calibration.entry import Entry, entry_path, wrapped, write_entry
        from hermes_flow.config.convert import convert
        from hermes_flow.config.folders import config_folder
        from hermes_flow.config.hugging_face import entry_of
        from hermes_flow.config.hugging_face.entry_text import entry_text
        from hermes_flow.config.origin import shown_path
        from hermes_flow.config.schema import Model
        from hermes_flow.cost.weights import weight_bytes
        from hermes_flow.program.units import bytes_to_gb

        entry, renamed = entry_of(self.path, self.model_kind, self.name), list[str]()
        if self.name is None and (config_folder() / "model" / f"{entry['name']}.yaml").is_file():
            renamed = wrapped(
                f"note: {entry['name']} is built in, so the entry is called {entry['name']}_imported"
            )
            entry["name"] += "_imported"
        model = convert(Model, entry, "model")
        path = entry_path("model", model.name, confs, overwrite=self.overwrite)
        write_entry(Entry("model", entry_text(entry, self.path), ()), path)
        size = bytes_to_gb(weight_bytes(model))
        figures = f"{model.name}: {model.parameters_b:,.4g} billion parameters, {size:,.4g} GB of weights"
        notes = [line for note in model.notes for line in wrapped(f"note: {note}")]
        command = pasted(["hermes-flow", "--config-dir", shown_path(confs), f"model={model.name}"])
        return "\n".join(
            [*wrapped(figures), *renamed, *notes, "", *wrapped(f"{shown_path(path)}; to use it:"), command]
        )
