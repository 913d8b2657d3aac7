"""Builds a copy of the package with its compiled core, which a measurement can run beside the pure one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.processes import ROOT


def compiled_package(folder: Path) -> Path:
    """Compile the core in ``folder`` (a minute or two), and return the folder that holds the package.

    The environment needs a C compiler, mypy with mypyc, and setuptools. Raises CalledProcessError where the
    compilation fails.
    """
    print("compiling the core", file=sys.stderr, flush=True)
    script = [sys.executable, str(ROOT / "compile_core.py"), str(folder / "built")]
    subprocess.run(script, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    package = folder / "package"
    for name in ("hermes_flow", "conf"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(folder / "built" / "lib", package, dirs_exist_ok=True)
    return package
