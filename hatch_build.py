"""Compiles the core of the simulator while the package is built, if the environment has ``HERMES_FLOW_COMPILE=1``.

mypyc makes C modules of the same source files, and they stand in for them where they are installed. Without the
variable the wheel is pure Python, and building it needs no compiler.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE = "HERMES_FLOW_COMPILE"


class CompiledCore(BuildHookInterface):  # type: ignore[type-arg, misc, unused-ignore]
    """The build hook of the project, called by hatchling for wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Return what compiling needs beside a C compiler."""
        return ["mypy[mypyc]~=2.4", "setuptools>=77"] if _asked() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the modules and add them to the wheel, or to the checkout for an editable install."""
        if not _asked() or self.target_name != "wheel":
            return
        root = Path(self.root)
        folder = root / "build" / "compiled"
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, str(root / "compile_core.py"), str(folder)], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        for file in (path for path in folder.rglob("*") if path.suffix in (".so", ".pyd")):
            name = file.relative_to(folder / "lib").as_posix()
            if version == "editable":
                shutil.copy2(file, root / name)
            else:
                build_data["force_include"][str(file)] = name


def _asked() -> bool:
    return os.environ.get(VARIABLE) == "1"
