"""``hermes-flow compile`` prints the compiled Program and runs nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hermes_flow.config.schema import Config
from hermes_flow.tasks.verb import verbs


@verbs.register("compile")
@dataclass(frozen=True, slots=True)
class CompileTask:
    """Writes ``program.txt`` and prints it."""

    def run(self, config: Config, folder: Path) -> str:
        """Compile, write, return the text."""
        from hermes_flow.compiler.compile import compile
        from hermes_flow.metrics.files import write_text

        text = str(compile(config))
        write_text(text, folder / "program.txt")
        return text.rstrip("\n")
