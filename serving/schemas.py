"""What do callers send and get? Typed requests and answers; the OpenAPI document is made of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

#: Largest whole number that tables keep.
MAX_ID = 2**63 - 1
MAX_K = 1000
SlotName = Literal["blue", "green"]
Basis = Literal["history", "features", "popularity"]

Id = Annotated[int, Field(ge=1, le=MAX_ID, strict=True)]
EventId = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+$")]
#: Times with a zone, within what every engine of the lake keeps.
Instant = Annotated[
    AwareDatetime,
    Field(ge=datetime.fromisoformat("1970-01-01T00:00:00Z"), lt=datetime.fromisoformat("2200-01-01T00:00:00Z")),
]


class Strict(BaseModel):
    """Unknown fields are refused, so that a misspelt one is noticed; numbers are finite."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Met(Strict):
    """One item that the visitor has met in this session."""

    item_id: Id
    at: Instant | None = Field(default=None, description="When; default: just now, in the order of the list.")


class RecommendRequest(Strict):
    """Who asks, what of them is not known yet, and what may be recommended."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"user_id": 196, "k": 10},
                {"history": [{"item_id": 50}, {"item_id": 181}], "k": 5, "genres": ["Sci-Fi"], "year_from": 1990},
            ]
        }
    )

    user_id: Id | None = Field(default=None, description="A user of the lake; unknown ones are new users.")
    history: list[Met] = Field(
        default=[], max_length=1000, description="Items of this session, oldest first, beside what is known."
    )
    k: int = Field(default=10, ge=1, le=MAX_K, strict=True, description="How many items.")
    genres: list[Annotated[str, Field(min_length=1, max_length=40)]] = Field(
        default=[], max_length=20, description="Only items of one of these."
    )
    year_from: int | None = Field(default=None, ge=0, le=9999, strict=True, description="Only items of that year on.")
    year_to: int | None = Field(default=None, ge=0, le=9999, strict=True, description="Only items up to that year.")
    exclude: list[Id] = Field(default=[], max_length=10_000, description="Items never to recommend.")
    details: bool = Field(
        default=False, strict=True, description="Also the history items that moved each score, and the feature values."
    )


class Moved(Strict):
    """A history item and what the score would lose without it."""

    item_id: int
    title: str
    change: float = Field(description="Score with it minus score without it, all else equal.")


class RecommendedItem(Strict):
    """One recommendation."""

    item_id: int
    title: str
    year: int | None
    genres: list[str]
    score: float = Field(description="Comparable within this answer only.")
    because: list[Moved] = Field(default=[], description="With details: what moved the score up, the most first.")
    features: dict[str, int | float | bool | str | list[str] | None] = Field(
        default={}, description="With details: the item's features as read."
    )


class ModelInfo(Strict):
    """Which model answered."""

    version: int = Field(description="In the registry.")
    digest: str = Field(description="SHA-256 over its files.")
    slot: SlotName
    canary: bool = Field(description="Whether this answer belongs to a canary's share.")
    trained_until: datetime


class FeaturesInfo(Strict):
    """Where the features came from."""

    source: Literal["online", "snapshot"] = Field(description="The store, or what it last said, as it does not answer.")
    known_at: dict[str, datetime] = Field(description="Per view, the instant that its rows stand for.")
    values: dict[str, int | float | bool | str | list[str] | None] = Field(
        default={}, description="With details: the user's features as read; empty for a new user."
    )


class RecommendResponse(Strict):
    """A ranked list, and all that is needed to say later what was shown by which model."""

    request_id: str = Field(description="Send it back with feedback.")
    user_id: int | None
    at: datetime = Field(description="When it was answered, by the service's clock.")
    basis: Basis = Field(description="Known by what they did; by features alone; or not at all.")
    history_events: int = Field(description="Events of the user known at the request.")
    model: ModelInfo
    features: FeaturesInfo
    items: list[RecommendedItem] = Field(description="Best first; fewer than k where the filters leave fewer.")


class SimilarRequest(Strict):
    """Which item to find others like."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": 50, "k": 5}]})

    item_id: Id
    k: int = Field(default=10, ge=1, le=MAX_K, strict=True)


class SimilarResponse(Strict):
    """Items that go with one item."""

    item_id: int
    title: str
    basis: Literal["item-to-item", "features"] = Field(
        description="Met together by users; or alike by features, for an item that is too new."
    )
    model: ModelInfo
    items: list[RecommendedItem]


class ExplainRequest(Strict):
    """Why this item for this user, or for this session?"""

    model_config = ConfigDict(json_schema_extra={"examples": [{"item_id": 50, "user_id": 196}]})

    item_id: Id
    user_id: Id | None = None
    history: list[Met] = Field(default=[], max_length=1000)


class ExplainResponse(Strict):
    """A reason in words, citing only what the user has met."""

    item_id: int
    reason: str
    cites: list[int]


class FeedbackEvent(Strict):
    """A list that was shown (impression), or what was done with one item (click, rating)."""

    event_id: EventId = Field(description="Yours; the same event sent again under the same id is kept once.")
    kind: Literal["impression", "click", "rating"]
    user_id: Id | None = None
    item_id: Id | None = Field(default=None, description="Of a click or rating.")
    rating: float | None = Field(default=None, ge=0.5, le=5, description="Of a rating: stars.")
    request_id: EventId | None = Field(default=None, description="The answer that was shown.")
    shown: list[Id] = Field(
        default=[], max_length=MAX_K, description="Of an impression: items in order; default: the whole answer."
    )
    occurred_at: Instant | None = Field(default=None, description="Default: when it is received.")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.kind == "impression":
            if self.item_id is not None:
                raise ValueError("an impression has shown, not item_id")
            if not self.shown and self.request_id is None:
                raise ValueError("an impression needs request_id or shown")
        elif self.item_id is None:
            raise ValueError(f"a {self.kind} needs item_id")
        if (self.kind == "rating") != (self.rating is not None):
            raise ValueError("a rating needs rating, and nothing else has one")
        if self.kind == "rating" and self.user_id is None:
            raise ValueError("a rating needs user_id")
        return self


class FeedbackRequest(Strict):
    """Events, in any order."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"event_id": "a-1", "kind": "impression", "user_id": 196, "request_id": "5f0c"},
                        {"event_id": "a-2", "kind": "rating", "user_id": 196, "item_id": 50, "rating": 5},
                    ]
                }
            ]
        }
    )

    events: list[FeedbackEvent] = Field(min_length=1, max_length=1000)


class FeedbackResponse(Strict):
    """All events are on the disk when this is sent."""

    accepted: int
    duplicates: int = Field(description="Kept before under the same ids.")
    ahead: int = Field(description="Dated over five minutes later than the service's clock; kept as of now.")


class Problem(Strict):
    """What every refusal looks like."""

    code: str
    message: str
    fix: str


class Health(Strict):
    """Whether the process lives, and what it does without."""

    status: Literal["ok", "degraded"]
    at: datetime
    model: ModelInfo | None
    degraded: list[str] = Field(description="What does not answer, and what is done instead; one sentence each.")


class StageRequest(Strict):
    """Which model to load into the slot that does not answer."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "champion"}]})

    model: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")] = "champion"


class SwitchRequest(Strict):
    """Let the staged model answer all, or a share of, the requests."""

    model_config = ConfigDict(json_schema_extra={"examples": [{}, {"canary": 0.1}]})

    canary: float | None = Field(default=None, gt=0, lt=1, description="Share of users; default: everybody.")
    force: bool = Field(default=False, strict=True, description="Also if the shadow replay speaks against it.")


class RollbackRequest(Strict):
    """Go back to the model before, and say why."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "support calls about children's films"}]})

    reason: str = Field(default="asked for", min_length=1, max_length=500)


class SlotStatus(Strict):
    """One slot's model and how it did."""

    slot: SlotName
    model: ModelInfo
    features: list[str] = Field(description="Views it was staged with, as table@version.")
    answers: int = Field(description="Answers watched since it last began to answer.")
    failures: int
    p99_ms: float | None


class Shadow(Strict):
    """The last requests replayed on both slots: active against staged."""

    requests: int
    k: int
    overlap: float = Field(description="Mean share of the k items that both recommend.")
    overlap_by_group: dict[str, float] = Field(description="The same by group of users.")
    failures: int = Field(description="Requests that the staged model could not answer.")
    active_p99_ms: float
    staged_p99_ms: float


class DeploymentStatus(Strict):
    """What answers, what waits, and the last comparison."""

    active: SlotStatus
    staged: SlotStatus | None
    canary: float = Field(description="Share of users that the staged slot answers.")
    shadow: Shadow | None
    registry_champion: int | None = Field(description="Version that the registry calls champion; null if unknown.")
    last_act: str = Field(description="What was done last, and why.")
