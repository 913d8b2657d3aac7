"""The checks of the repository: ``nox`` runs lint, types, wheel and tests.

Some sessions are run by name only: ``nox -s thorough`` (all random cases), ``nox -s bench`` (speed), ``nox -s
validate`` (measured data), ``nox -s decisions`` (capacity and plan against whole runs), ``nox -s reality`` (a real
vLLM on this machine), ``nox -s samples`` (sample outputs of the pages), ``nox -s measure_retrieval`` (vector
searches of this machine) and ``nox -s launchers`` (sweeps over joblib, submitit and Ray). Every session makes an
environment of its own; ``nox -R`` uses the environments of the last run again. The sessions that run by default
compile no installed package before it is used.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"  # dependency groups
nox.options.sessions = ["lint", "types", "wheel", "tests"]  # pytest's closing line comes last
nox.options.error_on_external_run = True

ROOT = Path(__file__).parent
PROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
COMPILER = ("mypy[mypyc]~=2.4", "setuptools>=77")  # as in hatch_build.py
TORCH_FOR_CPUS = "https://download.pytorch.org/whl/cpu"  # PyPI has only the torch for GPUs on Linux
# Each process that a test starts would otherwise compile the package anew where a machine has this switch set.
KEPT_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None}
DATA = Path(os.environ.get("HERMES_FLOW_DATA", ROOT.parent / "shared" / "data"))


def group(name: str) -> list[str]:
    """Return the requirements of one dependency group of pyproject.toml."""
    return nox.project.dependency_groups(PROJECT, name)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and the rule that imports point down only."""
    session.install(*group("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package with strict rules."""
    session.install("--no-compile", *PROJECT["project"]["dependencies"], *group("types"))
    session.run("mypy", "--num-workers", "auto", *session.posargs)  # it finds the package in this folder


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the source archive and its wheel, and run the wheel in an environment that has nothing else."""
    shutil.rmtree(session.create_tmp())
    folder = Path(session.create_tmp()).resolve()
    builder, dist = str(folder / "builder"), folder / "dist"
    pip = ("python", "-m", "pip", "--quiet")
    session.run(*pip, "install", "--target", builder, *PROJECT["build-system"]["requires"])
    hatchling = ("python", "-m", "hatchling", "build", "-t", "sdist", "-d", str(dist))
    session.run(*hatchling, env={"PYTHONPATH": builder})
    (archive,) = dist.glob("*.tar.gz")
    # The builder has what the package asks for to be built, and no more, as an environment of pip's own would.
    wheel_of = ("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(dist), str(archive))
    session.run(*pip, *wheel_of, env={"PYTHONPATH": builder})
    (built,) = dist.glob("*.whl")
    _check_files(session, built)
    session.install("--no-compile", str(built))
    with session.chdir(folder):  # outside the checkout, or Python would import its files and not the wheel's
        _check_run(session)


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test but the studies; arguments after ``--`` go to pytest."""
    session.install("--no-compile", "-e", ".", *group("test"))
    session.run(
        *("pytest", "-m", "not study and not browser", "--numprocesses", "auto", "--maxprocesses", "8"),
        *session.posargs,
        env=KEPT_BYTECODE,
    )


@nox.session(default=False)
def compiled(session: nox.Session) -> None:
    """Build the core with mypyc, and run every test on it; arguments after ``--`` go to pytest.

    The session works on a copy of the checkout, because compiled modules stand in for the source files beside them.
    """
    shutil.rmtree(session.create_tmp())
    copy = Path(session.create_tmp()).resolve() / "checkout"
    left_out = shutil.ignore_patterns(".git", ".nox", ".venv", "build", "outputs", "__pycache__", "*_cache")
    shutil.copytree(ROOT, copy, ignore=left_out)
    session.install("-e", str(copy), *group("test"), env={"HERMES_FLOW_COMPILE": "1"})
    said = session.run("hermes-flow", "--version", silent=True)
    if "compiled core" not in str(said):
        session.error(f"the core is not compiled: {said}")
    with session.chdir(copy):
        session.run(
            *("pytest", "-m", "not study and not browser", "--numprocesses", "auto", "--maxprocesses", "8"),
            *session.posargs,
            env={"HERMES_FLOW_DATA": str(DATA)},
        )
        session.run("python", "-m", "benchmarks.unchanged")


@nox.session(default=False)
def thorough(session: nox.Session) -> None:
    """Run every random case of every test, with new examples each time (about twice as long as ``tests``)."""
    session.install("-e", ".", *group("test"))
    chosen = ("-m", "not study and not browser", "--hypothesis-profile", "search")
    everything = {"HERMES_FLOW_TRIES": "all", **KEPT_BYTECODE}
    session.run(
        *("pytest", *chosen, "--numprocesses", "auto", "--maxprocesses", "8", *session.posargs),
        env=everything,
    )


@nox.session(default=False)
def launchers(session: nox.Session) -> None:
    """Run sweeps over every launcher that has an extra: joblib, submitit and Ray, the last two on this machine."""
    session.install("-e", ".[joblib,submitit,ray]", *group("test"))
    session.run("pytest", "tests/cli/test_launchers.py", "tests/cli/test_resumed_sweeps.py", *session.posargs)


@nox.session(default=False)
def pages(session: nox.Session) -> None:
    """Draw every page in the Chromium of this machine; ``-- --screenshots FOLDER`` keeps pictures of them."""
    session.install("-e", ".", *group("pages"))
    arguments, keep = list(session.posargs), {}
    if "--screenshots" in arguments:
        place = arguments.index("--screenshots")
        keep = {"HERMES_FLOW_SCREENSHOTS": arguments[place + 1]}
        del arguments[place : place + 2]
    session.run("pytest", "-m", "browser", *arguments, env=keep)


@nox.session(default=False)
def tour(session: nox.Session) -> None:
    """Run docs/tour.ipynb from the first cell to the last, and keep its results; ``-- --check`` keeps nothing."""
    session.install("-e", ".", "nbconvert", "ipykernel")
    notebook = ROOT / "docs" / "tour.ipynb"
    shutil.rmtree(session.create_tmp())
    folder = Path(session.create_tmp()).resolve()
    copy = shutil.copy(
        notebook, folder / "copy.ipynb"
    )  # it runs in its own folder, and writes below outputs there
    place = folder if "--check" in session.posargs else notebook.parent
    run = ("--to", "notebook", "--execute", "--output-dir", str(place), "--output", notebook.name)
    session.run("jupyter", "nbconvert", *run, "--ExecutePreprocessor.record_timing=False", str(copy))


@nox.session(default=False)
def samples(session: nox.Session) -> None:
    """Run the commands of README and docs again and write what they print (2 minutes); ``-- --check`` writes nothing.

    Other arguments are pages. The session names the samples that are not run again, and the prose that quotes numbers
    which changed by more than 5 %.
    """
    session.install("-e", ".")
    session.run(
        *("python", "-m", "benchmarks.sample_outputs", "--processes", "2", *session.posargs),
        env={"HERMES_FLOW_DATA": str(DATA), **KEPT_BYTECODE},
    )


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Measure speed and memory, of the compiled core too; ``-- --page docs/speed.md`` writes the page.

    It takes about 25 minutes on a quiet machine; ``--quick`` keeps the row of 10,000,000 requests and takes 15.
    """
    session.install("-e", ".", *COMPILER, "hydra-joblib-launcher>=1.2")
    session.run("python", "-m", "benchmarks.speed", "--compile", *session.posargs)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Run 10,000 random cases, or as many as half an hour allows; ``-- CASES FIRST_SEED`` (docs/trust.md)."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.fuzz", *session.posargs)


@nox.session(default=False)
def decisions(session: nox.Session) -> None:
    """Check searches and verdicts against whole runs (some minutes): capacity, plan, and what would help most."""
    session.install("-e", ".")
    session.run("python", "-m", "benchmarks.decisions", *session.posargs)
    session.run("python", "-m", "benchmarks.plan_check")
    session.run("python", "-m", "benchmarks.reliefs")


@nox.session(default=False)
def studies(session: nox.Session) -> None:
    """Run the studies and write docs/studies with its figures; ``-- NAME …`` chooses some."""
    session.install("-e", ".[joblib]", *group("pages"))
    session.run("python", "-m", "benchmarks.studies", *session.posargs)


@nox.session(default=False)
def measure_retrieval(session: nox.Session) -> None:
    """Measure vector searches on this machine and fit its constants (a few minutes); docs/retrieval.md."""
    session.install("-e", ".[retrieval]")
    session.run("python", "-m", "benchmarks.retrieval", *session.posargs)


@nox.session(default=False)
def reality(session: nox.Session) -> None:
    """Record a real vLLM on one core of this machine, alone and in pipelines, and compare the simulator with it.

    Arguments after ``--`` are names of runs (benchmarks/reality/recording/record.py) and ``--seconds N``, how long
    requests arrive in a run; ``--into FILE`` writes the page there.
    """
    arguments, page = list(session.posargs), Path(session.create_tmp()).resolve() / "reality.md"
    if "--into" in arguments:
        place = arguments.index("--into")
        page = Path(arguments[place + 1]).resolve()
        del arguments[place : place + 2]
    _install_vllm(session)
    # Their wheels look for CUDA, which vLLM's build for CPUs does not bring; a model of text needs none of them.
    session.run("python", "-m", "pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    runs = Path(session.create_tmp()).resolve() / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    session.run("python", "benchmarks/reality/recording/record.py", str(runs), *arguments)
    session.run("python", "-m", "benchmarks.reality.page", str(runs), "--into", str(page))


def _install_vllm(session: nox.Session) -> None:
    """Install a real vLLM for CPUs; where its torch is not in the usual places, from the place that PyTorch names."""
    wanted = ("-e", ".[calibrate]", *group("reality"))
    try:
        session.install(*wanted)
        return
    except nox.command.CommandFailed:
        session.log(f"not found in the usual places; once more with the torch for CPUs of {TORCH_FOR_CPUS}")
    try:
        session.install(*wanted, "--extra-index-url", TORCH_FOR_CPUS)
    except nox.command.CommandFailed:
        session.error(
            "vLLM for CPUs cannot be installed here. It needs Linux on x86-64 or arm64, Python 3.11 or newer, about "
            f"4 GB of disk, {', '.join(group('reality'))} from PyPI, and the torch for CPUs that it names (such as "
            f"2.13.0+cpu), which PyTorch has at {TORCH_FOR_CPUS}. Without a network, put that wheel into a folder "
            "and set PIP_FIND_LINKS to it. Runs that were recorded on another machine need none of this: python -m "
            "benchmarks.reality.page FOLDER --into PAGE"
        )


@nox.session(default=False)
def validate(session: nox.Session) -> None:
    """Compare with measured data, and fail where these data are missing.

    The session also fails if docs/accuracy.md, the errors in docs/energy.md, docs/known_misses.md, or the table of
    left-out runs behind the error bars, is not what the simulator gives today. A selection of tests (``-- -k …``)
    leaves these checks out.
    """
    if not DATA.is_dir():
        session.error(f"there is no measured data at {DATA}; set HERMES_FLOW_DATA to its folder")
    session.install("-e", ".", *group("test"))
    session.run(
        *("pytest", "-m", "shared_data", "--timeout", "1800", "--numprocesses", "auto", *session.posargs),
        env={"HERMES_FLOW_TRIES": "all"},  # every recorded schedule
    )
    if not session.posargs:
        session.run("python", "-m", "benchmarks.accuracy", "--check", "--data", str(DATA))
        session.run("python", "-m", "benchmarks.known_misses", "--check")
        session.run("python", "-m", "benchmarks.left_out_rows", "--check", "--data", str(DATA))


def _check_files(session: nox.Session, built: Path) -> None:
    """Compare the contents of the wheel with the package, the configurations and the licence of the checkout."""
    with zipfile.ZipFile(built) as archive:
        packed = set(archive.namelist())
    modules = (ROOT / "hermes_flow").rglob("*.py")
    configs = (ROOT / "conf").rglob("*.yaml")
    expected = {"hermes_flow/py.typed", *(path.relative_to(ROOT).as_posix() for path in modules)}
    expected |= {f"hermes_flow/{path.relative_to(ROOT).as_posix()}" for path in configs}
    report = ROOT / "hermes_flow" / "report"
    expected |= {
        path.relative_to(ROOT).as_posix() for path in (*report.rglob("*.css"), *report.rglob("*.js"))
    }
    expected |= {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "hermes_flow" / "metrics").rglob("*.json")
    }
    missing = sorted(expected - packed)
    strangers = sorted(name for name in packed - expected if ".dist-info/" not in name)
    if missing or strangers:
        session.error(f"{built.name}: missing {missing or 'nothing'}, not expected {strangers or 'nothing'}")
    if not any(name.endswith("/licenses/LICENSE") for name in packed):
        session.error(f"{built.name}: has no LICENSE")
    session.log(f"{built.name}: {len(packed)} files, as in the checkout")


def _check_run(session: nox.Session) -> None:
    """Run the installed command, and check that it writes the files of a run."""
    alone = {"PYTHONPATH": "", **KEPT_BYTECODE}
    session.run("hermes-flow", "--version", env=alone)
    session.run("python", "-m", "hermes_flow", "compile", "hydra.run.dir=compiled", env=alone)
    session.run("hermes-flow", "workload.requests=200", "hydra.run.dir=run", env=alone)
    files = ("requests.parquet", "stages.parquet", "clients.parquet", "summary.json", "program.txt")
    missing = [name for name in (*files, ".hydra/config.yaml") if not Path("run", name).is_file()]
    if missing:
        session.error(f"the run did not write {', '.join(missing)}")
