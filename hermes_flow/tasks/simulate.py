"""``hermes-flow simulate``, the default verb, runs a simulation and writes its tables."""

from __future__ import annotations

from pathlib import Path

from hermes_flow.config.schema import Config
from hermes_flow.program.quick_dataclass import dataclass
from hermes_flow.tasks.verb import verbs


@verbs.register("simulate")
@dataclass(frozen=True, slots=True)
class SimulateTask:
    """Compiles, simulates, writes the files of a run and prints its summary."""

    def run(self, config: Config, folder: Path) -> str:
        """Simulate and return the console summary."""
        from hermes_flow.compiler.compile import compile
        from hermes_flow.machine.run import run
        from hermes_flow.metrics.result import Result
        from hermes_flow.report.console import run_summary
        from hermes_flow.report.progress import progress_bar

        program = compile(config)
        with progress_bar(program) as progress:
            result = Result(run(program, progress))
        result.write(folder, trace=config.output.trace)
        if config.output.report:
            result.report(folder)
        return run_summary(result.summary, program)
