"""What do the engine and its worker process say to each other?

One JSON object a line: the engine writes a ``Start``, then any number of ``Ask``; the worker answers the first with
``Started``, each ``Ask`` with ``Answered``, and either with ``Failed``. Closing the worker's standard input ends it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter

from models.llm.component import Message, Sampling
from models.llm.number_type import native_number_type


class EngineConfig(BaseModel):
    """How vLLM is run. The defaults suit a small model on two processor cores."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: str = Field(
        default_factory=native_number_type, description="Number type of weights and activations, as vLLM names it."
    )
    max_model_len: int = Field(default=512, ge=64, description="Longest prompt and answer together, in tokens.")
    max_num_seqs: int = Field(default=128, ge=1, description="Rows that are decoded side by side.")
    max_num_batched_tokens: int = Field(default=4096, ge=64, description="Tokens computed in one step.")
    kv_cache_mib: int = Field(default=512, ge=64, description="Memory for attention keys and values, in MiB.")
    enforce_eager: bool = Field(default=True, description="No graph compilation: it costs more than it saves here.")
    batch_size: int = Field(default=256, ge=1, description="Rows handed over, and stored, at once.")
    seed: int = Field(default=0, ge=0)
    start_timeout_seconds: float = Field(default=600.0, gt=0)


class Generation(BaseModel):
    """What the model wrote for one prompt; ``finished`` is false when it was cut off at the token limit."""

    model_config = ConfigDict(frozen=True)

    text: str
    tokens_in: int
    tokens_out: int
    finished: bool


class Start(BaseModel):
    model: Path
    config: EngineConfig


class Ask(BaseModel):
    conversations: list[list[Message]]
    json_schema: dict[str, JsonValue]
    sampling: Sampling


class Started(BaseModel):
    kind: Literal["started"] = "started"


class Answered(BaseModel):
    """``seconds`` spent on these prompts; ``peak_rss_mib``: the worker's peak resident memory so far."""

    kind: Literal["answered"] = "answered"
    generations: list[Generation]
    seconds: float
    peak_rss_mib: float


class TooLong(BaseModel):
    kind: Literal["too_long"] = "too_long"
    count: int
    longest: int
    limit: int


class Failed(BaseModel):
    kind: Literal["failed"] = "failed"
    reason: str


Reply = Annotated[Started | Answered | TooLong | Failed, Field(discriminator="kind")]
REPLY: TypeAdapter[Reply] = TypeAdapter(Reply)
