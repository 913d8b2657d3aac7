"""Runs the sweep of a study in a folder, on both cores where the launcher joblib is installed."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

SEARCHES = ("client_scaling", "slo_price")  # whose jobs are searches, not runs
PLANS = ("tokens_per_dollar",)  # whose jobs are plans


def run_sweep(experiment: str, folder: Path) -> pl.DataFrame:
    """Run ``hermes-flow -m experiment=NAME`` into ``folder``; return its table.

    Raises RuntimeError if a job fails.
    """
    import polars as pl

    command = [
        sys.executable,
        "-m",
        "hermes_flow",
        "-m",
        f"experiment={experiment}",
        f"hydra.sweep.dir={folder}",
    ]
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher") is not None:
        command += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = subprocess.run([*command, "sweep.resume=true"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{experiment}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return pl.read_parquet(folder / "sweep.parquet")
