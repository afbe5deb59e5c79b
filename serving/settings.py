"""How is the service set up? One class, read from the environment at the edge; keys also from secret files."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from serving.errors import ServingConfigError

#: A key shorter than this can be guessed.
MIN_KEY_LENGTH = 16


class ServingSettings(BaseSettings):
    """Settings from ``MILLRACE_*`` variables."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_", extra="ignore", frozen=True)

    api_key: SecretStr | None = Field(default=None, description="What callers send as a bearer token.")
    api_key_file: Path | None = Field(default=None, description="File that holds it, such as a mounted secret.")
    admin_key: SecretStr | None = Field(default=None, description="What opens /admin; another one than the API key.")
    admin_key_file: Path | None = Field(default=None, description="File that holds it.")
    serving_url: str = Field(default="http://127.0.0.1:8080", description="Where clients and `millrace deploy` ask.")
    llm_url: str | None = Field(default=None, description="Where `millrace llm serve` listens; none: no LLM reasons.")
    rate_per_second: float = Field(default=500.0, gt=0, description="Requests a second that one caller may send.")
    rate_burst: int = Field(default=1000, ge=1, description="Requests that one caller may send at once.")
    max_body_bytes: int = Field(default=256 * 1024, ge=1024, description="Largest body of a request.")
    features_deadline_ms: float = Field(
        default=100.0, gt=0, description="How long a request waits for the online store before the snapshot is used."
    )
    served_share: float = Field(
        default=0.01, ge=0, le=1, description="Share of the answers whose features are kept, to be compared offline."
    )
    slo_latency_ms: float = Field(default=50.0, gt=0, description="Bound on the 99th percentile of /recommend.")
    slo_error_share: float = Field(default=0.01, gt=0, le=1, description="Bound on the share of failed answers.")
    slo_window: int = Field(default=200, ge=20, description="Answers over which both are watched after a switch.")

    def keys(self) -> tuple[str | None, str | None]:
        """The API key and the admin key; None where there is none.

        Raises ServingConfigError: a secret file can't be read, a key is too short, or both keys are the same.
        """
        api = _key("MILLRACE_API_KEY", self.api_key, self.api_key_file)
        admin = _key("MILLRACE_ADMIN_KEY", self.admin_key, self.admin_key_file)
        if api is not None and api == admin:
            raise ServingConfigError.same_keys()
        return api, admin


def _key(name: str, value: SecretStr | None, file: Path | None) -> str | None:
    if value is not None:
        key = value.get_secret_value().strip()
    elif file is not None:
        try:
            key = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ServingConfigError.key_file(f"{name}_FILE", str(file)) from None
    else:
        return None
    if len(key) < MIN_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise ServingConfigError.weak_key(name, MIN_KEY_LENGTH)
    return key
