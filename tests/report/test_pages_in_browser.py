"""Every page is drawn by a real browser without an error and without a request, on a screen, a phone and in print.

These tests need Chromium and Playwright; ``nox -s pages`` installs the latter and runs them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import hermes_flow as hf
from hermes_flow.cli import main

pytestmark = pytest.mark.browser

sync_api = pytest.importorskip("playwright.sync_api")

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-sync",
)
SCREENS: dict[str, dict[str, Any]] = {
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light", "is_mobile": True},
}
DRAWN = "[...document.querySelectorAll('figure.chart')].every(figure => figure.dataset.drawn === 'true')"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One page of each kind."""
    place = tmp_path_factory.mktemp("pages")
    small = ["workload.requests=120", "output.report=true"]
    main([*small, "pipeline=rag", "workload.rate_per_s=6", f"hydra.run.dir={place}/run"])
    main([*small, "cluster=disaggregated", "workload.rate_per_s=4", f"hydra.run.dir={place}/apart"])
    main(["capacity", *small, "task.seeds=2", f"hydra.run.dir={place}/capacity"])
    grid = ["hardware=h100_sxm,l40s", "workload.rate_per_s=4,8"]
    main(["-m", *small, *grid, f"hydra.sweep.dir={place}/sweep"])
    gpus = "task.hardware=[h100_sxm,l40s]"
    main(
        [
            "plan",
            *small,
            gpus,
            "task.tensor_parallel=[1,2]",
            "task.headrooms=1",
            f"hydra.run.dir={place}/plan",
        ]
    )
    hf.compare([place / "run", place / "apart"]).report(place / "compare.html")
    names = ("run/report.html", "capacity/report.html", "sweep/sweep.html", "plan/plan.html", "compare.html")
    return {name: place / name for name in names}


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize(
    "name", ["run/report.html", "capacity/report.html", "sweep/sweep.html", "plan/plan.html", "compare.html"]
)
def test_a_page_is_drawn_whole(browser: Any, pages: dict[str, Path], name: str, screen: str) -> None:
    context = browser.new_context(**SCREENS[screen])
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: request.url.startswith("file:") or said.append(request.url))
    page.goto(pages[name].as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    assert said == []
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    marks = page.evaluate(
        "[...document.querySelectorAll('figure.chart')].map(figure =>"
        " figure.querySelectorAll('svg path, svg line').length)"
    )
    assert len(marks) >= 3
    assert min(marks) > 3
    back, text = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (back == "rgb(13, 17, 23)") == (screen == "dark")
    assert back != text
    if "HERMES_FLOW_SCREENSHOTS" in os.environ:
        folder = Path(os.environ["HERMES_FLOW_SCREENSHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name.replace('/', '_')}-{screen}.png", full_page=True)
    context.close()


def test_print_is_light_and_leaves_out_the_buttons(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto(pages["run/report.html"].as_uri())
    page.wait_for_function(DRAWN, timeout=60_000)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("button.perfetto").is_visible()
    context.close()


def test_the_button_hands_the_trace_to_perfetto(browser: Any, pages: dict[str, Path]) -> None:
    context = browser.new_context()
    standing_in = """<script>addEventListener("message", event => {
      if (event.data === "PING") event.source.postMessage("PONG", "*");
      else document.title = event.data.perfetto.fileName + " " + new Uint8Array(event.data.perfetto.buffer)[0];
    })</script>"""
    context.route(
        "https://ui.perfetto.dev/**", lambda route: route.fulfill(body=standing_in, content_type="text/html")
    )
    page = context.new_page()
    page.goto(pages["run/report.html"].as_uri())
    with context.expect_page() as opened:
        page.click("button.perfetto")
    opened.value.wait_for_function("document.title !== ''")
    assert opened.value.title() == "trace.json.gz 31"  # 31 begins a gzip file
    context.close()
