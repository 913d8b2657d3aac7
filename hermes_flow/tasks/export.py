"""``hermes-flow export`` writes a configuration, or a design of a plan, as deployment files (docs/deployments.md)."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hermes_flow.config.quantities import Count
from hermes_flow.config.schema import Config
from hermes_flow.errors import ConfigError
from hermes_flow.tasks.verb import verbs

_FILES = {"command": "serve.sh", "compose": "docker-compose.yaml", "kubernetes": "kubernetes.yaml"}


@verbs.register("export")
@dataclass(frozen=True, slots=True)
class ExportTask:
    """Writes the LLM pools of the configuration as ``what`` into the folder of the run."""

    what: Literal["all", "command", "compose", "kubernetes"] = "all"
    """What is written: command lines of the engine, Docker Compose, Kubernetes, or all three."""
    plan: str | None = None
    """The folder of a finished plan, whose design is exported in place of the configuration."""
    design: Count = 1
    """Which design of the plan, from 1, in the order of its table."""
    model_id: str | None = None
    """The model as the engine shall load it; null takes the Hugging Face repository of the catalog's entry."""
    image: str | None = None
    """The image of the containers; null takes the one that the engine's makers publish."""

    def run(self, config: Config, folder: Path) -> str:
        """Write the files, and return what they hold."""
        from hermes_flow.config.origin import shown_path
        from hermes_flow.deployments.manifests import compose_text, kubernetes_text, shell_text
        from hermes_flow.deployments.servers import servers_of
        from hermes_flow.metrics.files import write_text

        servers = servers_of(config if self.plan is None else self._designed(config), self.model_id)
        texts = {
            "command": shell_text(servers),
            "compose": compose_text(servers, self.image),
            "kubernetes": kubernetes_text(servers, self.image),
        }
        lines = [texts["command"].rstrip(), ""]
        for kind, name in _FILES.items():
            if self.what in ("all", kind):
                write_text(texts[kind], folder / name)
                lines.append(shown_path(folder / name))
        return "\n".join(lines)

    def _designed(self, config: Config) -> Config:
        """Return the configuration of a design: what the plan was given, and the design's own overrides."""
        import polars as pl
        import yaml  # type: ignore[import-untyped]

        from hermes_flow.config.compose import compose
        from hermes_flow.config.folders import user_folders

        place = Path(self.plan or "").expanduser()
        table, given = place / "plan.parquet", place / ".hydra" / "overrides.yaml"
        if not table.is_file():
            raise ConfigError("task.plan", f"{self.plan} has no plan.parquet; expected the folder of a plan")
        designs = pl.read_parquet(table)
        if not 1 <= self.design <= len(designs):
            raise ConfigError(
                "task.design", f"{self.design} is not from 1 to {len(designs)}, the designs of the plan"
            )
        overrides = yaml.safe_load(given.read_text(encoding="utf-8")) if given.is_file() else []
        kept = [text for text in overrides if not text.lstrip("+~").startswith("task")]
        search = [own.as_uri() for own in user_folders()]
        extra = [f"hydra.searchpath=[{','.join(search)}]"] if search else []
        return compose([*kept, *shlex.split(str(designs["overrides"][self.design - 1])), *extra])
