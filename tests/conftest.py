"""Fixtures shared by all tests: a finished night (the real nightly job, once a session, in a fresh home and state)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from lakehouse import Lakehouse

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.prefix) / "bin"


def pytest_configure(config: pytest.Config) -> None:
    """A warning that one of the project's own modules causes is an error."""
    packages = "lakehouse|features|models|serving|tasks|workflows|cli"
    config.addinivalue_line("filterwarnings", rf"error:::({packages})(\.|$)")


#: Files that look at the night or ask the language model: one after the other, in one process. Two engines side by side
#: take many times as long, since each waits at every step for both processors.
APART = (
    "tests/docs/test_readme.py",
    "tests/models/llm/test_engine.py",
    "tests/serving/components/test_served.py",
    "tests/workflows/test_nightly.py",
    "tests/workflows/test_replay.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "first_night" in getattr(item, "fixturenames", ()) or item.get_closest_marker("engine"):
            assert item.path.relative_to(ROOT).as_posix() in APART, f"{item.nodeid} belongs to tests.conftest.APART"


class Scheduling(LoadScopeScheduling):
    """Side by side (`-n 2`), a file stays with one process, as its tests share what is dear to make.

    xdist's own groups are not read by pytest 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "apart" if file in APART else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling:
    return Scheduling(config, log)


@pytest.fixture
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What a test leaves behind, it leaves in its own folder."""
    monkeypatch.setenv("MILLRACE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("LAKEHOUSE_ROOT", str(tmp_path / "lake"))


@pytest.fixture
def lake(own_state: None, tmp_path: Path) -> Lakehouse:
    """An empty lake, the one that the settings name."""
    return Lakehouse.open(tmp_path / "lake", create=True)


@pytest.fixture(scope="session", autouse=True)
def spark_is_stopped_at_the_end() -> Iterator[None]:
    yield
    from lakehouse.spark import stop_spark

    stop_spark()


@dataclass(frozen=True)
class Workplace:
    """A fresh home and state folder, and how to run commands in them as a user would, from the repository's root."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def environment(self) -> Mapping[str, str]:
        home = self.folder / "home"
        home.mkdir(parents=True, exist_ok=True)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("MILLRACE_", "LAKEHOUSE_", "MLFLOW_"))}
        return {
            **inherited,
            "HOME": str(home),
            "MILLRACE_STATE": str(self.state),
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *command: str, timeout: float = 2700) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def nightly(self, *options: str) -> subprocess.CompletedProcess[str]:
        """`pyflyte run … nightly` with these options."""
        return self.run("pyflyte", "-c", "flyte.yaml", "run", "workflows/nightly.py", "nightly", *options)


@pytest.fixture(scope="session")
def first_night(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, subprocess.CompletedProcess[str]]:
    """A workplace in which the night of 1998-04-20 has run, cold; and what that run printed."""
    place = Workplace(tmp_path_factory.mktemp("night"))
    done = place.nightly("--day", "1998-04-20")
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done


@pytest.fixture(scope="session")
def night_state(first_night: tuple[Workplace, subprocess.CompletedProcess[str]]) -> Mapping[str, str]:
    """The environment of commands that look at that night."""
    return first_night[0].environment


@pytest.fixture(scope="session")
def workplace_at() -> type[Workplace]:
    """Makes a workplace of a folder."""
    return Workplace
