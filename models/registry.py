"""Which model is champion? MLflow's registry by alias, and the files of a version, checked against their digest."""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from lakehouse.errors import first_line
from lakehouse.settings import Settings
from models.errors import RegistryAwayError, RegistryError

REGISTERED_MODEL = "millrace-recommender"
CHAMPION = "champion"


class RegisteredVersion(BaseModel):
    """One version of the recommender in the registry.

    Attributes:
        version: its number.
        digest: SHA-256 over the model's files, as it was registered.
        day: the night that registered it, as it wrote it down.
        source: where the registry keeps the files.
    """

    model_config = ConfigDict(frozen=True)

    version: int
    digest: str
    day: str
    source: str


def tracking_uri() -> str:
    """MLflow's database: MLFLOW_TRACKING_URI, else SQLite in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Settings().state / 'mlflow.db'}"


def registry_name() -> str:
    """What names the registry, without a password; empty if it is a file that is not there."""
    parts = urlsplit(tracking_uri())
    if parts.scheme == "sqlite":
        return parts.path if Path(parts.path[1:]).is_file() else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def alone() -> Iterator[None]:
    """Nobody else on this machine registers meanwhile, where the registry is a SQLite file; elsewhere nothing happens.

    Two processes that make its tables at once fail, and two that look for a version at once both find none.
    """
    parts = urlsplit(tracking_uri())
    if parts.scheme != "sqlite":
        yield
        return
    with Path(f"{parts.path[1:]}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # let go when the file is closed, also by a kill
        yield


def find(reference: str) -> RegisteredVersion:
    """The version of a number ("12") or an alias ("champion"); nothing else is a reference.

    Raises RegistryError where the registry does not answer or has no such version.
    """
    from mlflow import MlflowClient

    if not (reference.isascii() and reference.replace("-", "").replace("_", "").isalnum() and len(reference) <= 64):
        raise RegistryError.reference(reference)
    with _registry_explained(reference):
        client = MlflowClient(tracking_uri=tracking_uri())
        found = (
            client.get_model_version(REGISTERED_MODEL, reference)
            if reference.isdigit()
            else client.get_model_version_by_alias(REGISTERED_MODEL, reference)
        )
    digest = found.tags.get("model_digest", "")
    if not digest:
        raise RegistryError.without_digest(int(found.version))
    return RegisteredVersion(
        version=int(found.version), digest=digest, day=found.tags.get("day", ""), source=str(found.source)
    )


def fetch(version: RegisteredVersion, into: Path) -> Path:
    """The folder of a version's files, copied below ``into`` once; loading it checks the digest.

    Raises RegistryError where the files can't be had.
    """
    import shutil
    from tempfile import TemporaryDirectory

    from mlflow.artifacts import download_artifacts

    folder = into / version.digest[:32]
    if folder.is_dir():
        return folder
    into.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=into) as scratch, _registry_explained(str(version.version)):
        got = download_artifacts(
            artifact_uri=version.source, dst_path=str(Path(scratch) / "got"), tracking_uri=tracking_uri()
        )
        shutil.copytree(got, Path(scratch) / "whole")
        if not folder.is_dir():
            (Path(scratch) / "whole").rename(folder)
    return folder


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """No telemetry, no notes on its own database, no warning of its use of SQLAlchemy."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader")
        yield


@contextmanager
def _registry_explained(reference: str) -> Iterator[None]:
    """The registry's own errors, and those of the database behind it, as one sentence."""
    from mlflow.exceptions import MlflowException

    with quiet_mlflow():
        try:
            yield
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise RegistryError.unknown(reference) from error
            raise RegistryAwayError.because(first_line(error)) from error
        except OSError as error:
            raise RegistryAwayError.because(first_line(error)) from error
