"""What holds for every test: which ones this machine can run, and a loud end when some were not run.

A test that uses the fixture `cluster` needs Slurm, `library` a C compiler; one marked `torch` or `wandb` needs that
package. With CI=true in the environment a missing need fails the whole run: what is skipped there would never run anywhere.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_resume.integrations import ADAPTERS

SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


@dataclass(frozen=True, slots=True)
class Need:
    """Something that not every machine has, and the way to get it."""

    mark: str
    name: str
    present: bool
    remedy: str
    optional: bool = False  # also in CI: few machines have it


NEEDS = (
    Need(
        "slurm",
        "Slurm",
        all(shutil.which(program, path=SBIN) for program in ("slurmctld", "slurmd", "sbatch")),
        "on Debian, as root: apt-get install slurm-wlm munge (`make test` as root does it)",
    ),
    Need(
        "compiler",
        "C compiler",
        any(shutil.which(program) for program in ("cc", "gcc", "clang")),
        "on Debian, as root: apt-get install gcc libc6-dev (`make test` as root does it)",
    ),
    Need("torch", "PyTorch", importlib.util.find_spec("torch") is not None, "`make test` installs it into the venv"),
    Need(
        "frameworks",
        "Lightning, transformers, Keras and JAX",
        all(importlib.util.find_spec(adapter.needs) is not None for adapter in ADAPTERS.values()),
        "`make test` installs them into the venv",
    ),
    Need(
        "wandb",
        "wandb",
        importlib.util.find_spec("wandb") is not None,
        "pip install 'wandb>=0.28' (`make test` does it)",
    ),
    Need("gpu", "NVIDIA GPU", Path("/dev/nvidiactl").exists(), "run these on a machine with a GPU", optional=True),
)


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def reason(need: Need) -> str:
    return f"this machine has no {need.name}"


def pytest_configure(config: pytest.Config) -> None:
    # What `nohup make test` ignores, its children ignore, and bash lets nobody trap it again (bash(1), trap). A handler
    # outlives the hang-up as well, and exec gives the children the default; xdist's workers must still inherit.
    workers_run_them = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN and not workers_run_them:
        signal.signal(signal.SIGHUP, lambda *_: None)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    soak = "soak" in config.getoption("markexpr")
    items.sort(key=lambda item: "unit" in item.path.parts)  # short ones last: no worker is left alone with a long one
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("slurm")
        if "library" in getattr(item, "fixturenames", ()):
            item.add_marker("compiler")
        for need in NEEDS:
            if item.get_closest_marker(need.mark) and not need.present:
                item.add_marker(pytest.mark.skip(reason=reason(need)))
        if item.get_closest_marker("soak") and not soak:
            item.add_marker(pytest.mark.skip(reason="`make soak` runs it"))


def not_run(config: pytest.Config) -> dict[Need, list[str]]:
    """Tests that were skipped for a missing need; empty in an xdist worker, which has no reporter."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    found = {
        need: [report.nodeid for report in skipped if str(report.longrepr[2]).endswith(reason(need))] for need in NEEDS
    }
    return {need: tests for need, tests in found.items() if tests}


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    missing = any(not need.optional for need in not_run(session.config))
    if in_ci() and exitstatus == pytest.ExitCode.OK and missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for need, tests in not_run(config).items():
        terminalreporter.section(f"{len(tests)} TESTS DID NOT RUN: no {need.name} here", sep="!", red=True, bold=True)
        for test in tests:
            terminalreporter.write_line(f"  {test}")
        terminalreporter.write_line(f"To run them: {need.remedy}", bold=True)
        if in_ci() and not need.optional:
            terminalreporter.write_line("CI is set: this is a failure.", red=True, bold=True)
