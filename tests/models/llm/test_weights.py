"""A model folder is whole, or the error says what is wrong with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models.llm import rehearsal, weights
from models.llm.errors import ModelFolderError, WeightsSourceError
from models.llm.weights import MANIFEST, ensure_weights, open_weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder in the layout of a Hugging Face model, too small to be one."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text(json.dumps({"_name_or_path": "tiny"}))
    (made / "tokenizer.json").write_text("{}")
    (made / "model.safetensors").write_bytes(b"\x00" * 64)
    return made


def test_the_first_look_records_digests_and_the_next_one_reads_no_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_weights(folder)
    assert first.name == "tiny"
    assert (folder / MANIFEST).is_file()
    monkeypatch.setattr(weights._FileRecord, "of", None)
    assert open_weights(folder) == first


def test_a_copy_with_new_times_is_the_same_model(folder: Path) -> None:
    first = open_weights(folder)
    os.utime(folder / "model.safetensors", (1, 1))
    assert open_weights(folder).digest == first.digest


def test_another_file_content_is_another_model(folder: Path) -> None:
    first = open_weights(folder)
    (folder / MANIFEST).unlink()
    (folder / "tokenizer.json").write_text('{"a":1}')
    assert open_weights(folder).digest != first.digest


def test_a_changed_byte_is_damage(folder: Path) -> None:
    open_weights(folder)
    path = folder / "model.safetensors"
    path.write_bytes(b"\x01" + b"\x00" * 63)
    os.utime(path, (1, 1))
    with pytest.raises(ModelFolderError, match=r"content of model\.safetensors changed"):
        open_weights(folder)


def test_a_cut_off_file_is_damage(folder: Path) -> None:
    open_weights(folder)
    (folder / "model.safetensors").write_bytes(b"\x00" * 63)
    with pytest.raises(ModelFolderError, match="has 63 bytes, not 64"):
        open_weights(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_lost_file_is_damage(folder: Path, name: str) -> None:
    open_weights(folder)
    (folder / name).unlink()
    with pytest.raises(ModelFolderError, match=f"{name} is missing"):
        open_weights(folder)


def test_a_broken_manifest_is_damage(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")
    with pytest.raises(ModelFolderError, match=MANIFEST):
        open_weights(folder)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFolderError, match=r"no language model in .*nowhere"):
        open_weights(tmp_path / "nowhere")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelFolderError, match="pickled"):
        open_weights(folder)


def test_nothing_is_made_over_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ModelFolderError):
        ensure_weights(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_package_is_one_sentence_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "SOURCE_PACKAGE", "no_such_package")
    with pytest.raises(WeightsSourceError, match="no-such-package"):
        ensure_weights(tmp_path / "model")
    monkeypatch.setattr(sys, "argv", ["rehearsal", str(tmp_path / "model")])
    assert rehearsal.main() == 1
    assert "no-such-package" in capsys.readouterr().err


def test_a_conversion_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(gguf: Path, target: Path) -> None:
        target.mkdir()
        (target / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "_convert", fail)
    with pytest.raises(WeightsSourceError, match="No space left"):
        ensure_weights(tmp_path / "weights" / "small")
    assert list((tmp_path / "weights").iterdir()) == []


def test_the_command_line_says_how_it_is_used() -> None:
    done = subprocess.run([sys.executable, "-m", "models.llm.rehearsal"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "usage" in done.stderr
