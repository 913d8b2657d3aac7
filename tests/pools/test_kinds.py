"""The registry of kinds of pools: keys without the kind, and one class for both."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hermes_flow.config.pools import pool_kinds
from hermes_flow.errors import ConfigError
from hermes_flow.pools.kind import kind_called

BUILT_IN = ["batched", "endpoint", "llm", "memory", "sequential"]


def test_every_folder_registers_its_kind() -> None:
    assert set(BUILT_IN) <= set(pool_kinds.names)


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_keys_found_without_a_kind_are_those_of_the_kind(name: str) -> None:
    code = f"""
import sys
from hermes_flow.config.pools import pool_kinds
schema = pool_kinds.schema_of({name!r}, "kind")
assert "hermes_flow.pools.{name}.kind" not in sys.modules
assert pool_kinds.find({name!r}, "kind").schema is schema
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert kind_called(name).schema is pool_kinds.schema_of(name, "kind")


def test_a_configuration_is_composed_without_numpy() -> None:
    code = """
import sys
import hermes_flow as hf
hf.compose(["pipeline=rag", "pool@cluster.pools.llm=endpoint"])
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_kind_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="unknown kind of pool 'lm'; did you mean 'llm'"):
        pool_kinds.schema_of("lm", "cluster.pools.x.kind")
    with pytest.raises(ConfigError, match="unknown kind of pool null"):
        pool_kinds.schema_of(None, "cluster.pools.x.kind")
