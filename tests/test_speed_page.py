"""The page of speed is made of kept figures alone: all of one command, and what is older has its date."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import compiled_package, speed, speed_figures, startup
from benchmarks.page import page
from benchmarks.speed_cases import STREAMED, Load, loads
from benchmarks.startup import MEANINGS

DOCS = Path(__file__).parents[1] / "docs"
NOWHERE = Path("no such folder")  # lists are drawn
STREAMED_ROW = f"chat, {STREAMED:,} requests, streamed"


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The loads that a sitting has run, each with the package that ran it; nothing is really measured."""
    found: list[tuple[str, Path]] = []

    def once(load: Load, package: Path) -> dict[str, float]:
        found.append((load.name, package))
        pure = package == speed.ROOT
        whole = {
            "requests": 100,
            "completed": 100,
            "events": 7,
            "steps": 5,
            "compile_s": 0.1,
            "compose_s": 0.1,
        }
        parts = {"simulate_s": 0.9, "tables_s": 0.5, "process_s": 4.0, "peak_mb": 200.0 + len(found)}
        times = {"simulate_us": 10.0 if pure else 3.0, "tables_us": 2.0, "total_us": 12.0}
        return {**whole, **parts, **times}

    monkeypatch.setattr(speed, "_once", once)
    monkeypatch.setattr(speed, "loop_us", lambda: 2.0)
    monkeypatch.setattr(startup, "measure", lambda runs: dict.fromkeys(MEANINGS, 0.05))
    monkeypatch.setattr(speed, "policy_rows", lambda requests, folder: [("plain", 0.4, 1.0)])
    return found


def measure(folder: Path, *options: str) -> str:
    speed.main(["--data", str(NOWHERE), "--page", str(folder / "speed.md"), *options])
    return (folder / "speed.md").read_text(encoding="utf-8")


def row(text: str, name: str) -> list[str]:
    """The cells of the row that begins with a name."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_one_command_fills_every_row_those_of_the_compiled_core_too(taken, tmp_path: Path) -> None:
    text = measure(tmp_path, "--compiled", str(tmp_path / "package"), "--runs", "2")
    assert row(text, "rag") == ["100", "10.00", "5.00", "3.00", "1.50", "2.00", row(text, "rag")[-1]]
    assert row(text, "compiled core, `pipeline=llm`") == ["≤ 2 ×", "1.50", "met"]
    assert row(text, "all tables on top of `simulate()`, chat") == ["≤ 0.25 of it", "0.20", "met"]
    assert row(text, "plain") == ["0.40", "1.00"]
    unknown = [line for line in text.splitlines() if line.endswith("| not measured |")]
    assert all("Mooncake" in line for line in unknown)  # its trace is not here
    assert "sitting" in text
    assert "except those of" not in text
    chosen = loads(NOWHERE)
    runs = [name for name, package in taken if package == speed.ROOT]
    assert runs.count("rag") == 2
    assert runs.count(STREAMED_ROW) == 1
    assert {name for name, package in taken if package != speed.ROOT} == {
        x.name for x in chosen if x.compiled
    }
    for load in chosen:
        assert load.name in text


def test_the_page_of_kept_figures_is_the_same_byte_for_byte(taken, tmp_path: Path) -> None:
    first = measure(tmp_path)
    count = len(taken)
    assert measure(tmp_path, "--from-figures") == first
    kept = speed_figures.read(tmp_path / "speed.json")
    assert page(kept) == first
    assert len(taken) == count


def test_what_a_sitting_leaves_out_stays_with_its_date(taken, tmp_path: Path) -> None:
    measure(tmp_path)
    path = tmp_path / "speed.json"
    before = row((tmp_path / "speed.md").read_text(encoding="utf-8"), STREAMED_ROW)
    path.write_text(path.read_text(encoding="utf-8").replace('"20', '"19'), encoding="utf-8")  # a century ago
    taken.clear()
    text = measure(tmp_path, "--quick")
    assert STREAMED_ROW not in {name for name, _ in taken}
    assert row(text, STREAMED_ROW) == before
    assert f"except those of {speed_figures.read(path).sittings[STREAMED_ROW]}: {STREAMED_ROW}." in text
    assert speed_figures.read(path).sittings[STREAMED_ROW].startswith("19")


def test_the_compiled_modules_lie_beside_their_sources_in_a_copy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def compile_core(command: list[str], **options: object) -> None:
        assert command[1].endswith("compile_core.py")
        library = Path(command[2]) / "lib" / "hermes_flow" / "machine"
        library.mkdir(parents=True)
        (library / "engine.so").write_text("compiled", encoding="utf-8")

    monkeypatch.setattr(compiled_package.subprocess, "run", compile_core)
    package = compiled_package.compiled_package(tmp_path)
    assert (package / "hermes_flow" / "machine" / "engine.so").is_file()
    assert (package / "hermes_flow" / "machine" / "engine.py").is_file()
    assert (package / "conf" / "config.yaml").is_file()
    assert not (speed.ROOT / "hermes_flow" / "machine" / "engine.so").exists()


def test_loads_that_are_no_more_leave_the_figures(taken, tmp_path: Path) -> None:
    measure(tmp_path)
    kept = speed_figures.read(tmp_path / "speed.json")
    kept.add({"an older load": {"simulate_us": 1.0}})
    kept.write(tmp_path / "speed.json")
    measure(tmp_path, "--only", "stages")
    assert speed_figures.read(tmp_path / "speed.json").figures.keys() == kept.figures.keys() - {
        "an older load"
    }


def test_missed_budgets_come_first_the_worst_at_the_top(taken, tmp_path: Path) -> None:
    measure(tmp_path)
    kept = speed_figures.read(tmp_path / "speed.json")
    kept.figures["chat"]["simulate_us"], kept.figures["rag"]["simulate_us"] = 24.0, 80.0
    lines = page(kept).splitlines()
    budgets = lines[lines.index("| what | bound | reached |  |") + 2 :]
    assert budgets[0] == "| `pipeline=rag` | ≤ 17 × | 40.00 | **missed** |"
    assert budgets[1] == "| `pipeline=chat` | ≤ 11 × | 12.00 | **missed** |"
    assert "**missed**" not in budgets[2]


def test_the_page_in_the_documentation_is_that_of_its_figures() -> None:
    kept = speed_figures.read(DOCS / "speed.json")
    if "llm" not in kept.figures:
        pytest.skip("nox -s bench -- --page docs/speed.md has not been run since the figures are kept")
    text = (DOCS / "speed.md").read_text(encoding="utf-8")
    assert text == page(kept)
