"""Where are models registered, and how does one come back from there? MLflow, in SQLite by default."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit

from lakehouse.settings import Settings

REGISTERED_MODEL = "millrace-recommender"


def tracking_uri() -> str:
    """MLflow's database: MLFLOW_TRACKING_URI, else SQLite in the state folder."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Settings().state / 'mlflow.db'}"


def registry_name() -> str:
    """What names the registry, without a password; empty if it is a file that is not there."""
    parts = urlsplit(tracking_uri())
    if parts.scheme == "sqlite":
        return parts.path if Path(parts.path[1:]).is_file() else ""
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def fetch_model(version: int, folder: Path) -> None:
    """Copy a registered version's files to a folder that is gone."""
    if folder.exists():
        return
    with quiet_mlflow():
        from mlflow import MlflowClient
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException

        try:
            source = MlflowClient(tracking_uri=tracking_uri()).get_model_version(REGISTERED_MODEL, str(version)).source
            folder.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(dir=folder.parent) as scratch:
                Path(download_artifacts(artifact_uri=source, dst_path=scratch)).rename(folder)
        except (MlflowException, OSError):
            return  # whoever loads the model says what is missing


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """No telemetry, no notes on its own database, no warning of its use of SQLAlchemy."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The ``noload`` loader")
        yield
