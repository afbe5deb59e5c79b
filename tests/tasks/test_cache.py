from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flytekit.core.cache import VersionParameters

from tasks import cache
from tasks.cache import MILLRACE_ROOT, ProjectDigest, contracts, import_root, sources


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Files are digested once a process; here each look is a new one."""
    clear()
    yield
    clear()


def clear() -> None:
    for one in (cache._read, cache._resources, cache._files, cache._digest, cache.environment_digest, cache.sources):
        one.cache_clear()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A user's project: flow uses near, which uses far; apart is used by nobody."""
    files = {
        "job/__init__.py": "",
        "job/flow.py": "from job.near import near\ndef run(): return near()\ndef walk(): return 1\n",
        "job/near.py": "def near():\n    from parts import far\n    return far.far()\n",
        "job/apart.py": "x = 1\n",
        "parts/__init__.py": "",
        "parts/far.py": "from . import base\nfrom .deep.low import low\ndef far(): return 1\n",
        "parts/base.py": "y = 1\n",
        "parts/deep/__init__.py": "",
        "parts/deep/low.py": "from ..base import y as low\n",
        "parts/prompt.txt": "Say something.",
        "parts/page.html.j2": "<p>",
        "parts/notes.md": "Nothing that runs.",
        "elsewhere/text.txt": "a",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def version(project: Path, monkeypatch: pytest.MonkeyPatch, name: str = "run", salt: str = "") -> str:
    """The cache version of a function of job/flow.py, as flytekit asks for it."""
    clear()
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(project))
        modules = {name for name in sys.modules if name.partition(".")[0] in ("job", "parts")}
        for module in modules:
            patch.delitem(sys.modules, module)
        function: Callable[[], int] = getattr(importlib.import_module("job.flow"), name)
        for module in [name for name in sys.modules if name.partition(".")[0] in ("job", "parts")]:
            del sys.modules[module]
    return ProjectDigest().get_version(salt, VersionParameters(func=function))


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("job/flow.py", True),
        ("job/near.py", True),
        ("job/__init__.py", True),
        ("parts/far.py", True),  # imported inside a function
        ("parts/base.py", True),  # imported relatively
        ("parts/deep/low.py", True),
        ("parts/prompt.txt", True),
        ("parts/page.html.j2", True),
        ("job/apart.py", False),
        ("parts/notes.md", False),
        ("elsewhere/text.txt", False),
    ],
)
def test_the_version_changes_with_what_the_task_uses_and_nothing_else(
    project: Path, monkeypatch: pytest.MonkeyPatch, path: str, counts: bool
) -> None:
    before = version(project, monkeypatch)
    assert version(project, monkeypatch) == before
    (project / path).write_text((project / path).read_text() + "\n# changed\n")
    assert (version(project, monkeypatch) != before) is counts


def test_two_tasks_of_one_module_and_two_salts_have_versions_of_their_own(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {version(project, monkeypatch, name, salt) for name in ("run", "walk") for salt in ("", "x")}
    assert len(found) == 4


def test_the_version_changes_with_the_environments_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project / "millrace"
    root.mkdir()
    monkeypatch.setattr(cache, "MILLRACE_ROOT", root)
    without = version(project, monkeypatch)
    (root / "requirements.lock").write_text("numpy==1")
    first = version(project, monkeypatch)
    (root / "requirements.lock").write_text("numpy==2")
    assert len({without, first, version(project, monkeypatch)}) == 3


def test_the_version_changes_with_an_engines_version_and_a_contract(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = version(project, monkeypatch)
    monkeypatch.setattr(cache, "engine_versions", lambda: {"torch": "0"})
    second = version(project, monkeypatch)
    monkeypatch.setattr(cache, "contracts", lambda function: {"ratings": "f"})
    assert len({first, second, version(project, monkeypatch)}) == 3


def test_a_tasks_contracts_are_those_of_all_tables_in_its_signature() -> None:
    from tasks.publish import publish

    assert set(contracts(publish.task_function)) == {"users", "movies", "ratings"}


def test_where_the_project_lies_does_not_count(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other") / "place"
    shutil.copytree(project, other)
    assert version(project, monkeypatch) == version(other, monkeypatch)


def test_a_task_of_the_nightly_job_depends_on_the_layers_below_it_and_on_no_other_task() -> None:
    start = MILLRACE_ROOT / "tasks" / "publish.py"
    found = sources(start, (import_root(start),))
    assert {"lakehouse/gate/publish.py", "lakehouse/tables.py", "lakehouse/gate/deequ.py", "tasks/typed.py"} <= set(
        found
    )
    assert not {name for name in found if name.startswith(("workflows/", "models/", "cli/", "tasks/train"))}


IMPORTS = """
if True: import m0
else: import m1
for _ in (): import m2
else: import m3
while False:
    import m4
else: import m5
try: import m6
except ValueError: import m7
else: import m8
finally: import m9
try: pass
except* OSError: import m10
with open("x") as x: import m11
match 1:
    case 1: import m12
    case _:
        if True: import m13
class A:
    import m14
    async def f(self):
        async with self: import m15
        async for _ in self:
            def g():
                lambda: 0; import m16
""".lstrip()


def test_an_import_is_seen_in_every_kind_of_statement(tmp_path: Path) -> None:
    names = [f"m{number}.py" for number in range(17)]
    for name in names:
        (tmp_path / name).write_text("")
    (tmp_path / "start.py").write_text(IMPORTS)
    assert sorted(sources(tmp_path / "start.py", (tmp_path,))) == sorted([*names, "start.py"])
