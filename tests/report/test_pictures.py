"""Pictures of charts for documentation: the same specification, in light and dark, and equal for equal charts."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from hermes_flow.report.charts.load import lines_over_time
from hermes_flow.report.charts.picture import png, svg
from hermes_flow.report.charts.theme import Spec


@pytest.fixture
def chart() -> Spec:
    return lines_over_time(np.arange(3.0), {"a": np.arange(3.0)}, "tasks")


def test_a_picture_has_the_colours_of_both_schemes_and_loads_nothing(chart: Spec) -> None:
    text = svg(chart, "A <line>", width=300)
    root = ElementTree.fromstring(text)
    assert root.attrib["viewBox"].startswith("0 0 332 ")
    assert "A &lt;line&gt;" in text
    assert "prefers-color-scheme: dark" in text
    assert 'stroke="var(--c1)"' in text
    assert "href=" not in text
    assert text == svg(chart, "A <line>", width=300)


def test_a_png_has_the_light_colours_in_place_of_their_names(chart: Spec) -> None:
    picture = png(chart, width=300)
    assert picture.startswith(b"\x89PNG")
    assert picture != png(lines_over_time(np.arange(3.0), {"a": np.arange(3.0) ** 2}, "tasks"), width=300)
