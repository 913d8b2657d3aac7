"""Writes docs/accuracy.md: every comparison with measured serving runs, the worst first.

``python -m benchmarks.accuracy [--data DATA] [--check | --engines]``. The errors of energy go into docs/energy.md as
well. With ``--check`` nothing is written, and the exit status is 1 where a page is not what the simulator says today;
some minutes. ``--engines`` prints the benchmark runs by GPU and engine alone, in half a minute.
"""

from __future__ import annotations

import argparse
import difflib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import (
    energy_tables,
    engine_constants,
    fits_left_out,
    left_out_tables,
    silicon,
    silicon_apart,
    weak_spots,
)
from benchmarks.accuracy_text import (
    COMPUTED,
    GPU_LEFT_OUT,
    HEADLINE,
    INTRODUCTION,
    MODELS_LEFT_OUT,
    NOT_FITTED,
    OTHER_FITS,
    RUNS,
    SILICON,
    WEAK,
)
from benchmarks.cold_runs import figures as figures_of_cold_runs
from benchmarks.drawn_tails import Tails
from benchmarks.energy import update_page as update_energy_page
from benchmarks.energy_errors import Found as Energies
from benchmarks.energy_errors import measure as energies
from benchmarks.error_text import signed as _signed
from benchmarks.error_text import size as _size
from benchmarks.error_text import table as _table
from benchmarks.left_out import Constants, models_left_out, replay_without_gpu, sizes_left_out
from benchmarks.measured_runs import DRAWS, aggregate, disaggregated, more, per_request, rtx
from benchmarks.processes import ROOT
from benchmarks.wrapping import wrapped
from hermes_flow.validation.compare import Compared, compare
from hermes_flow.validation.description import SIMULATOR, read_description

PAGE = ROOT / "docs" / "accuracy.md"
GPUS = {"b200_sxm": "B200", "b300_sxm": "B300", "gb200": "GB200", "h100_sxm": "H100", "h200_sxm": "H200"}
ENGINES = {"vllm": "vLLM", "trtllm": "TensorRT-LLM", "sglang": "SGLang"}
_COLUMNS = (("e2e", "mean"), ("tpot", "mean"), ("ttft", "mean"), ("ttft", "p90"), ("ttft", "p99"))


def main() -> None:
    """Simulate everything, then write the page or compare with it."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--check", action="store_true", help="compare with the page, write nothing")
    parser.add_argument(
        "--engines", action="store_true", help="print the errors by GPU and engine, write nothing"
    )
    options = parser.parse_args()
    if options.engines:
        rows, _ = silicon.covered(silicon.read(options.data))
        found = [silicon.simulate(row, edit=fits_left_out.left_out(row)) for row in rows]
        print(_groups([each for each in found if each.problem is None and _is_recorded(each)]), "", sep="\n")
        print(_groups([each for each in found if each.problem is None and not _is_recorded(each)]))
        return
    energy = energies(options.data)
    update_energy_page(energy, write=not options.check)
    text = page(options.data, energy)
    if not options.check:
        PAGE.write_text(text, encoding="utf-8")
        print(f"Written to {PAGE}")
        return
    before = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    changes = difflib.unified_diff(
        before.splitlines(), text.splitlines(), "the page", "today", lineterm="", n=0
    )
    print("\n".join(changes) or f"{PAGE} is up to date")
    if before != text:
        sys.exit(
            "docs/accuracy.md is not what the simulator says; python -m benchmarks.accuracy writes it anew"
        )


def page(data: Path, energy: Energies) -> str:
    """Return the page, with these errors of energy."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        on_h100 = [*per_request(data, folder), *aggregate(data, folder), *_on_h100(more(data, folder))]
        single = folder / "once"
        once = [
            *per_request(data, folder),
            *aggregate(data, single, draws=1),
            *_on_h100(more(data, single, draws=1)),
        ]
        runs = [compare(read_description(path)) for path in on_h100]
        elsewhere = [compare(read_description(path)) for path in more(data, folder) if path not in on_h100]
        constants = Constants(once)
        alone, sizes = models_left_out(constants), sizes_left_out(constants)
        blank = [replay_without_gpu(path) for path in once]
        others = [
            compare(read_description(path)) for path in [*rtx(data, folder), *disaggregated(data, folder)]
        ]
        collection = silicon.read(data)
        rows, left_out = silicon.covered(collection)
        del left_out["prefill and decode apart"]
        left_out |= silicon_apart.reasons(collection)
        found = [silicon.simulate(row, edit=fits_left_out.left_out(row)) for row in rows]
        sections = [
            INTRODUCTION,
            HEADLINE,
            left_out_tables.headline(alone, sizes, blank, elsewhere, runs),
            COMPUTED,
            left_out_tables.computed(found, ENGINES),
            energy_tables.HEADLINE,
            energy_tables.headline(energy),
            _weak(runs, others, found, figures_of_cold_runs(collection)),
            NOT_FITTED,
            _runs(elsewhere),
            RUNS,
            _runs(runs),
            _by_others(runs, ("blis_trained", "blis_roofline")),
            OTHER_FITS,
            _runs(others),
            _by_others(others, ("llmservingsim",)),
            *_silicon(found, left_out),
            MODELS_LEFT_OUT,
            left_out_tables.constants(alone, sizes),
            GPU_LEFT_OUT,
            _gpus(once, blank, found),
            *energy_tables.section(energy),
        ]
    return "\n".join(wrapped(section.strip("\n")) + "\n" for section in sections)


def _errors(run: Compared, simulator: str = SIMULATOR) -> dict[tuple[str, str], float]:
    return {(row.metric, row.statistic): row.error_percent for row in run.rows if row.simulator == simulator}


def _worst(run: Compared) -> float:
    """Return the larger of the errors of the means of E2E and TPOT, by which runs are put in order."""
    found = _errors(run)
    return max(abs(found.get((metric, "mean"), 0.0)) for metric in ("e2e", "tpot"))


def _runs(runs: Sequence[Compared]) -> str:
    ordered = sorted(runs, key=lambda run: -_worst(run))
    errors = [_errors(run) for run in ordered]
    each = [found.get(("e2e", "request_ape_p50")) for found in errors]
    rows = [
        [run.name, *(_signed(found.get(column)) for column in _COLUMNS), "" if size is None else _size(size)]
        for run, found, size in zip(ordered, errors, each, strict=True)
    ]
    sizes = [
        _size(float(np.mean([abs(found[column]) for found in errors if column in found])))
        for column in _COLUMNS
    ]
    known = [size for size in each if size is not None]
    rows.append(["**mean size**", *sizes, _size(float(np.mean(known))) if known else ""])
    return _table(["run", "E2E", "TPOT", "TTFT", "p90 of TTFT", "p99 of TTFT", "E2E of a request"], rows)


def _by_others(runs: Sequence[Compared], names: Sequence[str]) -> str:
    """Return our mean errors beside those of other simulators, over the runs and metrics that these have."""
    rows = []
    for name in names:
        both = [(_errors(run), _errors(run, name)) for run in runs if _errors(run, name)]
        for metric, title in (("e2e", "E2E"), ("tpot", "TPOT"), ("itl", "ITL"), ("ttft", "TTFT")):
            pairs = [
                (ours[metric, "mean"], theirs[metric, "mean"])
                for ours, theirs in both
                if (metric, "mean") in theirs
            ]
            if pairs:
                ours, theirs = np.abs(pairs).mean(axis=0).tolist()
                rows.append([name.replace("_", ", "), str(len(pairs)), title, _size(ours), _size(theirs)])
    return _table(["other simulator", "runs", "mean", "hermes_flow", "it"], rows)


def _figures(found: Sequence[silicon.Found]) -> list[str]:
    """Return the cells of rows: how many; of TPOT and of TTFT the mean size, its median, and the mean error."""
    errors = 100 * np.array([each.errors for each in found])
    cells = [str(len(found))]
    for column in (1, 0):
        values = errors[:, column]
        size = np.abs(values)
        cells += [_size(float(size.mean())), _size(float(np.median(size))), _signed(float(values.mean()))]
    return cells


_HEAD = ["rows", "TPOT", "median", "bias", "TTFT", "median", "bias"]


def _groups(found: Sequence[silicon.Found]) -> str:
    """Return a table by GPU, precision, engine and model, the worst TPOT first."""
    groups: dict[tuple[str, ...], list[silicon.Found]] = {}
    for each in found:
        groups.setdefault((*each.group, silicon.model_of(each.row)), []).append(each)
    ordered = sorted(groups.items(), key=lambda item: -silicon.mape(item[1])[1])
    rows = []
    for (system, precision, engine, kind, model), members in ordered:
        rows.append([f"{GPUS[system]}, {precision}, {ENGINES[engine]}", kind, model, *_figures(members)])
    return _table(["system", "kind", "model", *_HEAD], rows)


def _kinds(found: Sequence[silicon.Found]) -> list[list[str]]:
    rows = []
    for kind in ("mixture", "dense"):
        members = [each for each in found if each.group[-1] == kind]
        if members:
            rows.append([kind, *_figures(members)])
    return rows


def _is_recorded(each: silicon.Found) -> bool:
    return silicon.is_recorded(each.row)


def _silicon(found: Sequence[silicon.Found], left_out: dict[str, int]) -> list[str]:
    done = [each for each in found if each.problem is None]
    unfitted = [each for each in done if left_out_tables.is_unfitted(each)]
    done = [each for each in done if not left_out_tables.is_unfitted(each)]
    published = [each for each in done if _is_recorded(each)]
    others = [each for each in done if not _is_recorded(each)]
    stated = [
        each
        for each in (silicon.simulate(each.row, False, fits_left_out.left_out(each.row)) for each in others)
        if each.problem is None
    ]
    reasons = dict(left_out)
    for each in found:
        if each.problem is not None:
            reasons[f"simulation: {each.problem}"] = reasons.get(f"simulation: {each.problem}", 0) + 1
    total = len(found) + sum(left_out.values())
    counts = sorted(reasons.items(), key=lambda item: -item[1])
    return [
        SILICON["introduction"].format(
            total=f"{total:,}",
            compared=f"{len(done) + len(unfitted):,}",
            left_out=f"{sum(reasons.values()):,}",
        ),
        _table(
            ["rows", "kind", *_HEAD],
            [
                *(["on B300, which nothing was fitted to", *row] for row in _kinds(unfitted)),
                *(["method published", *row] for row in _kinds(published)),
                *(["others", *row] for row in _kinds(others)),
                *(["others, lengths as stated", *row] for row in _kinds(stated)),
            ],
        ),
        SILICON["unfitted"],
        _groups(unfitted),
        SILICON["published"],
        _groups(published),
        SILICON["others"],
        _groups(others),
        SILICON["as_stated"],
        _groups(stated),
        SILICON["left_out"],
        _table(["why", "rows"], [[reason, str(count)] for reason, count in counts]),
    ]


def _weak(
    runs: Sequence[Compared], others: Sequence[Compared], found: Sequence[silicon.Found], cold: dict[str, str]
) -> str:
    """Return the weak spots, with their figures and those of runs that are not compared."""
    published = [
        each
        for each in found
        if each.problem is None and _is_recorded(each) and not left_out_tables.is_unfitted(each)
    ]
    apart, together, two = (_errors(run) for run in others if run.name.startswith("Llama-3.1-70B on H100:"))
    tails = Tails(runs)
    return WEAK.format(
        **cold,
        **weak_spots.figures(published),
        apart_ttft=_signed(apart["ttft", "mean"]),
        apart_tpot=_signed(apart["tpot", "mean"]),
        together_ttft=_signed(together["ttft", "mean"]),
        together_tpot=_signed(together["tpot", "mean"]),
        two_ttft=_signed(two["ttft", "mean"]),
        two_tpot=_signed(two["tpot", "mean"]),
        draws=DRAWS,
        tail=_size(float(np.mean(tails.sizes))),
        tail_known=_size(float(np.mean(tails.known))),
        runs_known=len(tails.known),
        tail_worst=_size(max(tails.sizes)),
        runs_drawn=tails.drawn,
        tail_sure=tails.sure,
        tail_within=tails.within,
    )


def _on_h100(paths: Sequence[Path]) -> list[Path]:
    return [path for path in paths if "hardware=h100_sxm" in read_description(path).overrides]


def _gpus(paths: Sequence[Path], blank: Sequence[Compared], found: Sequence[silicon.Found]) -> str:
    """Return what the errors are with and without each GPU's own measurements."""
    rows = []
    own = [_errors(compare(read_description(path))) for path in paths]
    without = [_errors(run) for run in blank]
    cells = [
        f"{_size(float(np.mean([abs(errors[metric, 'mean']) for errors in each])))}"
        for metric in ("tpot", "ttft")
        for each in (own, without)
    ]
    rows.append(["H100", f"{len(paths)} runs above", *cells])
    done = [each for each in found if each.problem is None and _is_recorded(each)]
    for system, title in GPUS.items():
        for kind in ("dense", "mixture"):
            members = [each for each in done if (each.group[0], each.group[3]) == (system, kind)]
            again = [
                silicon.simulate(each.row, edit=engine_constants.gpu_left_out(each.row)) for each in members
            ]
            known = [each for each in again if each.problem is None]
            if not known:
                continue
            (ttft, tpot), (ttft_without, tpot_without) = silicon.mape(members), silicon.mape(known)
            sizes = (tpot, tpot_without, ttft, ttft_without)
            rows.append([title, f"{len(members)} rows, {kind}", *(_size(100 * size) for size in sizes)])
    return _table(["GPU", "compared with", "TPOT", "without it", "TTFT", "without it"], rows)


if __name__ == "__main__":
    main()
