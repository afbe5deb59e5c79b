"""Where does everything live, and how big may Spark be? One class, read from the environment at the edge."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


def project_folder(start: Path | None = None) -> Path:
    """The nearest folder at or above ``start`` that holds flyte.yaml, else ``start`` (default: the working folder)."""
    here = (start or Path.cwd()).resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "flyte.yaml").is_file()), here)


class Settings(BaseSettings):
    """Settings from ``MILLRACE_*`` variables; the lake's own is ``LAKEHOUSE_ROOT``."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True, populate_by_name=True)

    state: Path = Field(
        default_factory=lambda: project_folder() / ".millrace",
        description="Folder for what runs leave behind: the lake, models, the online store, reports.",
    )
    lakehouse_root: str | None = Field(
        default=None,
        validation_alias="LAKEHOUSE_ROOT",
        description="Folder or s3:// URL of the Delta tables; default: lake/ in the state folder.",
    )
    spark_master: str = Field(default="local[2]", description="Spark master URL.")
    spark_partitions: int = Field(
        default=2, ge=1, description="Partitions of a shuffle; on a cluster about as many as it has cores."
    )
    spark_memory: str = Field(default="1g", description="Heap of the Spark driver, as the JVM writes sizes.")
    keep_runs_days: int = Field(
        default=90, ge=0, description="Days for which vacuum keeps the versions that a run read or wrote."
    )
    retention_days: int = Field(
        default=7, ge=0, description="Days for which vacuum keeps every version after a newer one replaced it."
    )
    notify: str = Field(
        default="", description="Who hears of a failed launch plan: e-mail addresses with commas; read at registration."
    )
    openlineage_url: str | None = Field(
        default=None, description="Where OpenLineage events go: an http(s):// endpoint or a file; nowhere by default."
    )

    @property
    def root(self) -> str:
        return self.lakehouse_root or str(self.state / "lake")
