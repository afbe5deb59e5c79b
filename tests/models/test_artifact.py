"""Stored models come back whole, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from models import artifact
from models.errors import ArtifactError

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2])}


def test_tensors_and_description_come_back_and_the_digest_repeats(tmp_path: Path) -> None:
    first, second = (artifact.write(tmp_path / name, TENSORS, {"format": 1}) for name in ("x", "y"))
    assert first == second
    tensors, description = artifact.read(tmp_path / "x", digest=first)
    assert description == {"format": 1}
    assert torch.equal(tensors["a"], TENSORS["a"])
    assert sorted(path.name for path in (tmp_path / "x").iterdir()) == ["model.json", "model.safetensors"]


def test_the_digest_covers_both_files(tmp_path: Path) -> None:
    digest = artifact.write(tmp_path, TENSORS, {"format": 1})
    assert artifact.write(tmp_path, TENSORS, {"format": 2}) != digest
    assert artifact.write(tmp_path, TENSORS | {"b": torch.tensor([1, 3])}, {"format": 1}) != digest


def test_a_cut_off_or_edited_tensor_file_is_refused(tmp_path: Path) -> None:
    artifact.write(tmp_path, TENSORS, {})
    file = tmp_path / artifact.TENSORS
    whole = file.read_bytes()
    for broken in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        file.write_bytes(broken)
        with pytest.raises(ArtifactError, match="cut off or edited"):
            artifact.read(tmp_path)


def test_an_edited_description_is_refused(tmp_path: Path) -> None:
    artifact.write(tmp_path, TENSORS, {"seed": 1})
    file = tmp_path / artifact.DESCRIPTION
    file.write_text(file.read_text().replace('"seed": 1', '"seed": 2'))
    with pytest.raises(ArtifactError, match="cut off or edited"):
        artifact.read(tmp_path)


def test_another_models_folder_is_refused_by_the_recorded_digest(tmp_path: Path) -> None:
    recorded = artifact.write(tmp_path / "x", TENSORS, {"seed": 1})
    artifact.write(tmp_path / "x", TENSORS, {"seed": 2})
    with pytest.raises(ArtifactError, match=recorded[:12]):
        artifact.read(tmp_path / "x", digest=recorded)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"format": 1})])
def test_a_description_that_is_no_description_is_refused(tmp_path: Path, content: str) -> None:
    artifact.write(tmp_path, TENSORS, {})
    (tmp_path / artifact.DESCRIPTION).write_text(content)
    with pytest.raises(ArtifactError, match="can't be read"):
        artifact.read(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"model\.safetensors"):
        artifact.read(tmp_path)
