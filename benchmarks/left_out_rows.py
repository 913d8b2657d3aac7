"""Collects the error of every prediction of a measured run that was made without that run, its model or its GPU.

``python -m benchmarks.left_out_rows [--data DATA] [--check]`` simulates them (about a quarter of an hour on one core)
and writes ``benchmarks/left_out_rows.csv``, or compares with it. ``--gpus gb200 b300_sxm`` simulates only the
benchmark runs on these GPUs again. ``benchmarks.error_bars`` makes the error bars of predictions from that table.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import engine_constants, fits_left_out, published, silicon, silicon_apart
from benchmarks.left_out import Constants, without
from benchmarks.measured_runs import aggregate, disaggregated, more, per_request, rtx
from benchmarks.processes import ROOT
from benchmarks.silicon_gpus import SIBLINGS
from hermes_flow.pools.llm.evidence import special_features
from hermes_flow.pools.llm.schema import LLMPool
from hermes_flow.validation.compare import Compared, compare
from hermes_flow.validation.description import SIMULATOR, read_description

TABLE = ROOT / "benchmarks" / "left_out_rows.csv"
METRICS = ("ttft", "tpot", "e2e")
RECORDED, UNRECORDED = "InferenceMAX", "other"  # the first word of a benchmark run: how it was measured
COLUMNS = (
    *("left_out", "run", "hardware", "engine", "model", "mixture", "layout", "cost", "hit_share", "work"),
    "special",
)


@dataclass(frozen=True, slots=True)
class LeftOutRow:
    """The errors of one prediction.

    ``left_out`` names what the constants were made without: the run, its model, its GPU, the serving runs of its GPU
    (``serving``; and its model, where SGLang's or TensorRT-LLM's launches of prompts are fitted to it), these and the
    kernels of its GPU, which has those of another of its architecture (``sibling``), all accelerators of its maker
    (``maker``), or nothing because no run like it was ever used (``never``). ``hit_share`` is the share of prompt
    tokens that a prefix cache holds, ``work`` the arriving work as a share of what the busiest pool can do. The
    errors are measured / simulated of the means. ``special`` is what few runs have (see ``special_features``).
    """

    left_out: str
    run: str
    hardware: str
    engine: str
    model: str
    mixture: bool
    layout: str
    cost: str
    hit_share: float
    work: float
    errors: dict[str, float]
    special: tuple[str, ...] = ()

    @property
    def recorded(self) -> bool:
        """Tell whether it is recorded how the run was measured."""
        return not self.run.startswith(f"{UNRECORDED} ")


def main() -> None:
    """Simulate everything and write the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--check", action="store_true", help="compare with the table, write nothing")
    parser.add_argument("--silicon", action="store_true", help="simulate only the benchmark runs again")
    parser.add_argument(
        "--gpus", nargs="+", default=[], help="simulate only the benchmark runs on these again"
    )
    options = parser.parse_args()
    if options.silicon:
        _write([*(row for row in read() if not _is_silicon(row)), *_all_silicon(options.data)])
        return
    if options.gpus:
        others = [row for row in read() if not _is_silicon(row) or row.hardware not in options.gpus]
        _write([*others, *_all_silicon(options.data, options.gpus)])
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        once = [
            *per_request(options.data, folder),
            *aggregate(options.data, folder, draws=1),
            *more(options.data, folder, draws=1),
        ]
        on_h100 = [path for path in once if "hardware=h100_sxm" in read_description(path).overrides]
        elsewhere = [path for path in once if path not in on_h100]
        others = [*rtx(options.data, folder), *disaggregated(options.data, folder)]
        found = [
            *_h100_rows(on_h100),
            *_elsewhere(elsewhere),
            *_others(others),
            *amd_rows(),
            *_all_silicon(options.data),
        ]
    if options.check:
        if text(found) != TABLE.read_text(encoding="utf-8"):
            sys.exit(
                f"{TABLE} is not what the simulator says; python -m benchmarks.left_out_rows writes it anew"
            )
        print(f"{TABLE} is up to date")
        return
    _write(found)


def _write(rows: Sequence[LeftOutRow]) -> None:
    TABLE.write_text(text(rows), encoding="utf-8")
    print(
        f"{len(rows)} rows written to {TABLE}; python -m benchmarks.error_bars makes the table of the package"
    )


def text(rows: Iterable[LeftOutRow]) -> str:
    """Return the table as CSV."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow([*COLUMNS, *METRICS])
    for row in rows:
        cells = [getattr(row, name) for name in COLUMNS]
        cells = [f"{cell:.3f}" if isinstance(cell, float) else str(cell).lower() for cell in cells]
        cells[1], cells[-1] = row.run, ", ".join(row.special)
        errors = [row.errors.get(metric) for metric in METRICS]
        table.writerow([*cells, *("" if error is None else f"{error:.4f}" for error in errors)])
    return file.getvalue()


def read(path: Path = TABLE) -> list[LeftOutRow]:
    """Return the rows of the table."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            LeftOutRow(
                *(entry[name] for name in COLUMNS[:5]),
                mixture=entry["mixture"] == "true",
                layout=entry["layout"],
                cost=entry["cost"],
                hit_share=float(entry["hit_share"]),
                work=float(entry["work"]),
                errors={metric: float(entry[metric]) for metric in METRICS if entry[metric]},
                special=tuple(each for each in (entry.get("special") or "").split(", ") if each),
            )
            for entry in csv.DictReader(file)
        ]


def _h100_rows(paths: Sequence[Path]) -> list[LeftOutRow]:
    """Return the runs on H100 without themselves, without their model, and without their GPU."""
    constants = Constants(paths)
    names = constants.models
    found = []
    for index, path in enumerate(paths):
        others = [row for row in range(len(paths)) if row != index]
        if names.count(names[index]) > 1:
            found.append(_row("run", path, given=constants.fitted_to(others)))
        alone = [row for row in others if names[row] != names[index]]
        found.append(_row("model", path, given=constants.fitted_to(alone)))
        found.append(_row("gpu", path, without_gpu=True))
    return found


def _elsewhere(paths: Sequence[Path]) -> list[LeftOutRow]:
    return [row for path in paths for row in (_row("serving", path), _row("gpu", path, without_gpu=True))]


def _others(paths: Sequence[Path]) -> list[LeftOutRow]:
    return [_row("never", path) for path in paths]


def _row(left_out: str, path: Path, given: Sequence[str] = (), without_gpu: bool = False) -> LeftOutRow:
    run = read_description(path)
    found = compare(run, given, without if without_gpu else None)
    overrides = dict(text.split("=", 1) for text in run.overrides)
    summary = found.replayed.summaries[0]
    return LeftOutRow(
        left_out=left_out,
        run=run.name,
        hardware=overrides["hardware"],
        engine="vllm",
        model=overrides["model"],
        mixture=_is_mixture(overrides["model"]),
        layout=overrides.get("cluster", "replicas"),
        cost=overrides.get("cost", "roofline"),
        hit_share=summary.get("prefix", {}).get("hit_share") or 0.0,
        work=_work(summary),
        errors=_ratios(found),
    )


def _ratios(found: Compared) -> dict[str, float]:
    return {
        row.metric: 1.0 / (1.0 + row.error_percent / 100.0)
        for row in found.rows
        if row.simulator == SIMULATOR and row.statistic == "mean" and row.metric in METRICS
    }


def _work(summary: dict[str, Any]) -> float:
    shares = [pool["saturation"]["work"] for pool in summary["pools"].values()]
    return max((share for share in shares if share is not None), default=0.0)


def _is_mixture(model: str) -> bool:
    return silicon.catalog_model(model).experts is not None


def _is_silicon(row: LeftOutRow) -> bool:
    return row.left_out in ("serving", "sibling", "gpu", "never") and row.run.endswith(" users")


def _all_silicon(data: Path, gpus: Sequence[str] = ()) -> list[LeftOutRow]:
    """Return the benchmark runs, or those on these GPUs."""
    rows = silicon.read(data)
    together, apart = silicon.covered(rows)[0], silicon_apart.covered(rows)
    if gpus:
        together, apart = ([row for row in each if row["system"] in gpus] for each in (together, apart))
    pair = [] if gpus and "b200_sxm" not in gpus else [wide_pair_row()]
    return [*_silicon(together), *apart_rows(apart), *pair]


def _silicon(rows: Sequence[dict[str, Any]]) -> list[LeftOutRow]:
    found = []
    for row in rows:
        found.append(_silicon_row("sibling" if row["system"] in SIBLINGS else "serving", row))
        if silicon.is_recorded(row):
            found.append(_silicon_row("gpu", row))
    return [row for row in found if row is not None]


def apart_rows(rows: Sequence[dict[str, Any]]) -> list[LeftOutRow]:
    """Return the benchmark runs with prefill and decode apart; the constants were made without any such run."""
    found = []
    for row in rows:
        simulated = silicon_apart.simulate(row)
        if simulated.problem is not None:
            continue
        model, shape = silicon.model_of(row), f"{row['isl']}/{row['osl']}"
        placed = silicon_apart.layout(row)
        workers = f"{placed.prefill.clients}P{placed.decode.clients}D"
        found.append(
            LeftOutRow(
                left_out="never",
                run=f"{shape} {workers}, {silicon_apart.users(row)} users",
                hardware=row["system"],
                engine=_engine(row),
                model=model,
                mixture=_is_mixture(model),
                layout="disaggregated",
                cost="roofline",
                hit_share=0.0,
                work=float(np.nan),
                errors=_errors(row, simulated),
            )
        )
    return found


def wide_pair_row() -> LeftOutRow:
    """Return the published run of DeepSeek on B200 with prefill and decode apart that is no row of the collection."""
    requests = published.run(*published.wide_pair()).requests
    ttft, e2e = (published.MEASURED_PAIR[name] for name in ("TTFT", "E2E"))
    tpot = published.MEASURED_PAIR_TPOT_S
    means = {name: float(requests[f"{name}_s"].mean() or np.nan) for name in METRICS}
    return LeftOutRow(
        left_out="never",
        run=f"srt-slurm {published.PAIR_PROMPT}/{published.PAIR_ANSWER} 1P1D, {published.PAIR_USERS} users",
        hardware="b200_sxm",
        engine="sglang",
        model="deepseek_v3",
        mixture=True,
        layout="disaggregated",
        cost="roofline",
        hit_share=0.0,
        work=float(np.nan),
        errors={"ttft": ttft / means["ttft"], "tpot": tpot / means["tpot"], "e2e": e2e / means["e2e"]},
    )


def amd_rows() -> list[LeftOutRow]:
    """Return published runs on accelerators of AMD, of which no kernel was measured."""
    found = []
    for run in published.amd_runs():
        ttft, tpot = run.simulated()
        gaps = run.answer - 1
        e2e = (run.ttft_ms + gaps * run.tpot_ms) / (ttft + gaps * tpot)
        found.append(
            LeftOutRow(
                left_out="maker",
                run=f"{run.source}, {run.users} users",
                hardware="mi300x",
                engine=run.engine,
                model=run.model,
                mixture=_is_mixture(run.model),
                layout="replicas",
                cost="roofline",
                hit_share=0.0,
                work=float(np.nan),
                errors={"ttft": run.ttft_ms / ttft, "tpot": run.tpot_ms / tpot, "e2e": e2e},
            )
        )
    return found


def _engine(row: dict[str, Any]) -> str:
    return {"trtllm": "tensorrt_llm"}.get(row["backend"], row["backend"])


def _placed(row: dict[str, Any]) -> str:
    placed = silicon.layout(row)
    return f"TP{placed.tensor}" if placed.data == 1 else f"DP{placed.data}"


def _errors(row: dict[str, Any], simulated: silicon.Found) -> dict[str, float]:
    """Return measured / simulated; E2E is that of the mean answer."""
    gaps = 0.9 * row["osl"] - 1.0
    real = row["silicon_ttft_ms"], row["silicon_tpot_ms"]
    ttft, tpot = simulated.ttft_ms, simulated.tpot_ms
    assert ttft is not None
    assert tpot is not None
    e2e = (real[0] + gaps * real[1]) / (ttft + gaps * tpot)
    return {"ttft": real[0] / ttft, "tpot": real[1] / tpot, "e2e": e2e}


def _silicon_row(left_out: str, row: dict[str, Any]) -> LeftOutRow | None:
    simulated = silicon.simulate(
        row, edit=engine_constants.gpu_left_out(row) if left_out == "gpu" else fits_left_out.left_out(row)
    )
    if simulated.problem is not None:
        return None
    published = silicon.is_recorded(row)
    model, pool = silicon.model_of(row), silicon.config(row).cluster.pools["llm"]
    assert isinstance(pool, LLMPool)
    return LeftOutRow(
        left_out=left_out,
        run=f"{RECORDED if published else UNRECORDED} {row['isl']}/{row['osl']} "
        f"{_placed(row)} {silicon.users(row)} users",
        hardware=row["system"],
        engine=_engine(row),
        model=model,
        mixture=_is_mixture(model),
        layout="replicas",
        cost="roofline",
        hit_share=0.0,
        work=float(np.nan),
        errors=_errors(row, simulated),
        special=tuple(special_features(pool)),
    )


if __name__ == "__main__":
    main()
