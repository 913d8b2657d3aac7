from __future__ import annotations

import re
from pathlib import Path

from benchmarks.configuration_page import MARKER, PAGE, keys_without_meaning, page, prose_of
from hermes_flow.config.folders import config_folder


def test_the_page_is_what_its_generator_writes() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert MARKER in text
    assert text == page(prose_of(text)), "run python -m benchmarks.configuration_page"


def test_every_key_has_a_meaning() -> None:
    assert keys_without_meaning() == []


def test_every_group_and_its_entries_are_listed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for folder in (path for path in config_folder().iterdir() if path.is_dir() and path.name != "hydra"):
        assert f"| `{folder.name}` |" in text
        for entry in folder.glob("*.yaml"):
            assert f"`{entry.stem}`" in text


def test_links_within_the_page_lead_to_a_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors


def test_figures_of_the_page_are_those_of_the_schema() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert (
        "| `routing_stale_ms` | number 0, or from 0.01 to 1e9 | ms | `0.0` | Policies see the loads" in text
    )
    assert "| `kv_transfer` | `full`, `layerwise` |  | `full` |" in text
    assert "### `process: gamma`" in text
    assert "### `policy: heavy_light`" in text
    assert Path(PAGE).name == "configuration.md"
