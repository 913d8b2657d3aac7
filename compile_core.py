"""Compiles the core of the simulator by mypyc: ``python compile_core.py FOLDER`` makes C modules in ``FOLDER/lib``.

The modules are those of ``MODULES``, from the same source files. hatch_build.py calls this while it builds a wheel.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent
# The hot path: the loop of events, the clients of LLM pools, the caches of prefixes and the transfers. Some modules
# stay as they are: pools/llm/waiting has a class that derives from deque, which mypyc cannot compile;
# program/step_cost has one with a cached property, which a compiled class would compute again at every access; and
# batching policies are asked for what their class says of itself, which a compiled class does not show.
MODULES = (
    "machine/arrivals",
    "machine/coordinator",
    "machine/data_transfers",
    "machine/engine",
    "machine/failed_requests",
    "machine/held_contexts",
    "machine/held_kv",
    "machine/hops",
    "machine/host_ahead",
    "machine/network_events",
    "machine/placement",
    "machine/pool_clients",
    "machine/record",
    "machine/shared_kv",
    "machine/shipments",
    "machine/transfers",
    "network/fabric",
    "network/known_transfers",
    "network/max_min",
    "network/streams",
    "network/taken_links",
    "pools/batched/client",
    "pools/batched/known_arrivals",
    "pools/client",
    "pools/deliveries",
    "pools/llm/adapter_client",
    "pools/llm/batch",
    "pools/llm/batching/admission",
    "pools/llm/batching/chunk_steps",
    "pools/llm/batching/decoding",
    "pools/llm/batching/limited_chunk_steps",
    "pools/llm/blocks",
    "pools/llm/cached_batch",
    "pools/llm/client",
    "pools/llm/context_holding_client",
    "pools/llm/decode_run",
    "pools/llm/decoding_batch",
    "pools/llm/earliest_end",
    "pools/llm/engine_client",
    "pools/llm/forward_client",
    "pools/llm/forward_ends",
    "pools/llm/inbox",
    "pools/llm/load",
    "pools/llm/lone_chains",
    "pools/llm/offload/adapter_client",
    "pools/llm/offload/batch",
    "pools/llm/offload/client",
    "pools/llm/offload/links",
    "pools/llm/offload/lru_tier",
    "pools/llm/offload/store",
    "pools/llm/offload/tiers",
    "pools/llm/plain_batch",
    "pools/llm/plain_cached_batch",
    "pools/llm/plain_client",
    "pools/llm/plain_constants",
    "pools/llm/plain_ends",
    "pools/llm/plain_loop",
    "pools/llm/prefix_cache",
    "pools/llm/promised_ends",
    "pools/llm/prompt_blocks",
    "pools/llm/queue_and_batch",
    "pools/llm/scheduler",
    "pools/llm/step_log",
    "pools/llm/step_loop",
    "pools/llm/tasks",
    "pools/memory/client",
    "pools/memory/tasks",
    "pools/memory/tiered_store",
    "pools/outbox",
    "pools/sequential/client",
    "pools/tasks",
)
# Types of other libraries make no faster code, and reading them takes most of the time of the compiler.
SETTINGS = """\
[mypy]
ignore_missing_imports = true
follow_imports = silent
[mypy-numpy.*,polars.*,hydra.*,omegaconf.*,scipy.*,yaml.*,altair.*]
follow_imports = skip
follow_imports_for_stubs = true
"""


def compile_core(folder: Path) -> None:
    """Compile ``MODULES`` into ``folder / "lib"``, as the package has them."""
    from mypyc.build import mypycify
    from setuptools import setup

    folder.mkdir(parents=True, exist_ok=True)
    # A product and a sum that are rounded once would not equal those of Python, which are rounded twice.
    usual = os.environ.get("CFLAGS") or sysconfig.get_config_var("CFLAGS") or ""
    os.environ["CFLAGS"] = f"{usual} -ffp-contract=off"
    (folder / "mypy.ini").write_text(SETTINGS)
    os.chdir(ROOT)
    sources = [f"hermes_flow/{name}.py" for name in MODULES]
    settings = ["--config-file", str(folder / "mypy.ini"), "--cache-dir", str(folder / "cache")]
    extensions = mypycify([*settings, *sources], opt_level="3", debug_level="0", target_dir=str(folder / "c"))
    places = ["--build-temp", str(folder / "temp"), "--build-lib", str(folder / "lib")]
    setup(name="hermes_flow", packages=[], ext_modules=extensions, script_args=["build_ext", *places])


if __name__ == "__main__":
    compile_core(Path(sys.argv[1]).resolve())
