"""Lets a cluster's own pools take the place of those that the pipeline brings under the same names.

A pipeline's defaults list brings the pools of its services (``/pool@_global_.cluster.pools.embed: embed``). A cluster
may hold a pool of the same name, by its own defaults list or written out, as every file of the first version does.
Hydra refuses a group that is chosen twice. While ``own_pools_first`` is active, the cluster's pool stands and the
pipeline's entry is left out; two parts of one pipeline that bring the same pool bring it once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_POOLS = "cluster.pools."
# A single figure of what a pool may leave open, or of the overheads that a hardware takes of its engine. Hydra
# refuses a key below null or below one that no file has; conversion names one that is unknown.
_FIGURE = re.compile(r"cluster\.pools\.[^.]+\.(?:model|hardware|engine)\.|hardware\.engine(?:\.|$)")
_CHOSEN = ("model", "hardware", "engine")  # groups with a place in every LLM pool, which is empty by default


@contextmanager
def own_pools_first() -> Iterator[None]:
    """Compose with the rule above; Hydra's defaults lists are restored afterwards."""
    from hydra._internal import defaults_list

    plain = defaults_list.Overrides
    defaults_list.Overrides = _with_own_pools(plain)  # type: ignore[misc]
    try:
        yield
    finally:
        defaults_list.Overrides = plain  # type: ignore[misc]


def _with_own_pools(plain: type[Any]) -> type[Any]:
    """Return Hydra's record of overrides and choices with the rule added where it asks what is deleted."""
    from hydra.core.override_parser.types import OverrideType

    class OwnPoolsFirst(plain):  # type: ignore[misc]
        """Hydra walks from the last entry of config.yaml to the first: it sees the cluster before the pipeline."""

        def __init__(self, repo: Any, overrides_list: Any) -> None:
            super().__init__(repo=repo, overrides_list=overrides_list)
            for override in self.config_overrides:
                if override.type is OverrideType.CHANGE and _FIGURE.match(override.key_or_group):
                    override.type = OverrideType.FORCE_ADD
            self._repo = repo
            self._own: set[str] = set()

        def is_deleted(self, default: Any) -> bool:
            group = getattr(default, "group", None)
            if group is None:
                self._note_written_pools(default)
                return bool(super().is_deleted(default))
            package = default.get_final_package()
            if package == "cluster" and default.get_group_path() == "cluster":
                self._note_written_pools(default)
            if package.startswith(_POOLS) and self._is_left_out(default, package):
                return True
            return bool(super().is_deleted(default))

        def delete(self, default: Any) -> None:
            if default.get_override_key() in self.deletions:
                super().delete(default)
            default.deleted = True

        def _is_left_out(self, default: Any, package: str) -> bool:
            key, name = default.get_override_key(), package.removeprefix(_POOLS).partition(".")[0]
            if (default.package or "").startswith("_global_."):
                if default.get_group_path() == "pool" and name in self._own:
                    return True
            elif default.parent_package == "cluster":
                self._own.add(name)
            if default.get_name() is None and default.get_group_path() in _CHOSEN:
                self.known_choices_per_group.setdefault(default.get_group_path(), set()).add(key)
                return True
            external = default.is_external_append()
            return not external and self.known_choices.get(key) == default.get_name()

        def _note_written_pools(self, default: Any) -> None:
            """Note the pools that a file of the cluster writes out."""
            if default.is_virtual() or default.get_name() is None or default.get_final_package() != "cluster":
                return
            loaded = self._repo.load_config(config_path=default.get_config_path())
            pools = None if loaded is None else loaded.config.get("pools")
            for name, pool in pools.items() if isinstance(pools, Mapping) else ():
                if hasattr(pool, "get") and pool.get("kind") is not None:
                    self._own.add(str(name))

    return OwnPoolsFirst
