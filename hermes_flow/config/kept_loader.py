"""Keeps Hydra's loader from one composition of a Python session to the next, while its files stay as they are.

A loader remembers the files that it has read and merged, so that a composition of the same choices takes a third of
the time of the first one, and one of other choices half of it. It is not kept where anything else could change what
is read: with a folder of the user, after a model of the user's own file, and after an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore

from hermes_flow.config.folders import config_folder
from hermes_flow.config.loading import Loader

_MOST_CHOICES = 64  # the merged files of one choice take 0.3 MB


class _Kept:
    """The loader of the last composition, and what it was made for; None where there is none to go on with."""

    loader: Loader | None = None
    made_for: Any = None


@contextmanager
def kept_loader(overrides: Sequence[str]) -> Iterator[None]:
    """Let Hydra compose ``overrides`` with the loader of the composition before, if that holds, else a new one."""
    if any("searchpath" in override for override in overrides):
        yield
        return

    def loader_for(config_search_path: ConfigSearchPath) -> Loader:
        places = tuple((entry.provider, entry.path) for entry in config_search_path.get_path())
        made_for = (places, _signature(config_folder()), _stored(ConfigStore.instance().repo))
        kept, _Kept.loader = _Kept.loader, None  # nobody else takes it while this composition is under way
        if kept is None or made_for != _Kept.made_for or kept.choices_known >= _MOST_CHOICES:
            kept = Loader(config_search_path)
        used.append(kept)
        _Kept.made_for = made_for
        return kept

    used: list[Loader] = []
    names = vars(hydra._internal.hydra)
    before = names["ConfigLoaderImpl"]
    names["ConfigLoaderImpl"] = loader_for
    try:
        yield
        if used and not used[-1].has_read_models:
            _Kept.loader = used[-1]
    finally:
        names["ConfigLoaderImpl"] = before


def _signature(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Return the files below a folder, with the time of their last change and their size."""
    found: list[tuple[str, int, int]] = []
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    waiting.append(entry.path)
                else:
                    state = entry.stat()
                    found.append((entry.path, state.st_mtime_ns, state.st_size))
    return tuple(sorted(found))


def _stored(repo: Any) -> Any:
    """Return the names of the entries that Python code has given to Hydra."""
    return {name: _stored(below) for name, below in repo.items()} if isinstance(repo, dict) else None
