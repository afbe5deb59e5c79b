"""How is a model stored? As safetensors and JSON under one digest, so that a cut-off or edited file is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from models.errors import ArtifactError

TENSORS, DESCRIPTION = "model.safetensors", "model.json"


def write(folder: Path, tensors: Mapping[str, torch.Tensor], description: Mapping[str, JsonValue]) -> str:
    """Write the two files into `folder` (made if need be) and return the sha256 digest over both, in hex.

    The same tensors and description always give the same bytes. The description is written last, so a folder with
    one holds a whole model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blob = save_tensors({name: tensor.contiguous() for name, tensor in tensors.items()})
    digest = _digest(blob, description)
    _replace(folder / TENSORS, blob)
    _replace(folder / DESCRIPTION, json.dumps({"digest": digest, **description}, indent=1, sort_keys=True).encode())
    return digest


def read(folder: Path, *, digest: str | None = None) -> tuple[dict[str, torch.Tensor], dict[str, JsonValue]]:
    """The tensors and the description that `write` stored.

    Raises ArtifactError when a file is missing or can't be read, when the files do not have the digest they were
    written with, or when that is not `digest` (what the registry recorded).
    """
    for name in (TENSORS, DESCRIPTION):
        if not (folder / name).is_file():
            raise ArtifactError.missing(str(folder / name))
    blob = (folder / TENSORS).read_bytes()
    try:
        description = json.loads((folder / DESCRIPTION).read_bytes())
    except ValueError as error:
        raise ArtifactError.damaged(str(folder / DESCRIPTION), str(error)) from None
    if not isinstance(description, dict) or "digest" not in description:
        raise ArtifactError.damaged(str(folder / DESCRIPTION), "it holds no digest")
    stored = str(description.pop("digest"))
    found = _digest(blob, description)
    for expected in (stored, digest):
        if expected is not None and expected != found:
            raise ArtifactError.digest(str(folder), expected, found)
    try:
        # A tensor read from the blob lies where the file put it; a copy is aligned, and sums alike to the last bit.
        return {name: tensor.clone() for name, tensor in load_tensors(blob).items()}, description
    except SafetensorError as error:
        raise ArtifactError.damaged(str(folder / TENSORS), str(error)) from None


def format_of(folder: Path) -> int | None:
    """The format that the stored description names; None where there is none to be read."""
    try:
        found = json.loads((folder / DESCRIPTION).read_bytes()).get("format")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def _digest(blob: bytes, description: Mapping[str, JsonValue]) -> str:
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    both = hashlib.sha256(blob).digest() + hashlib.sha256(canonical).digest()
    return hashlib.sha256(both).hexdigest()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(content)
    partial.replace(path)
