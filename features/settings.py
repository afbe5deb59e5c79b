"""Which online store is used? One setting, read from the environment at the edge."""

from __future__ import annotations

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class OnlineSettings(BaseSettings):
    """``MILLRACE_ONLINE_STORE``; secret, because it may hold a password."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    online_store: SecretStr | None = Field(
        default=None,
        description="URL of the online store (redis, rediss, postgresql); default: SQLite, in the state folder.",
    )
