"""What does a simulation say? Its script, what each policy served and trained, and what became of the incidents."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PolicyName = Literal["never", "weekly", "nightly", "on drift"]
IncidentKind = Literal["corrupt feed", "preference shift", "bad challenger", "bad release"]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Script(_Value):
    """What is played.

    Attributes:
        first, last: the days (UTC) on which users are served.
        holdout_days: the newest days, kept from training and used by the gates, as in the nightly job.
        seed: of the trainings, the questions and the incidents.
        incidents: whether any are planted.
    """

    first: date
    last: date
    holdout_days: int = Field(14, ge=1)
    seed: int = 0
    incidents: bool = True

    def days(self) -> list[date]:
        """Every day, the first and the last included."""
        return [self.first + timedelta(days=n) for n in range((self.last - self.first).days + 1)]


class Served(_Value):
    """What one policy's model did on one day.

    Attributes:
        model_until: up to the beginning of this day (UTC) the model had learned.
        ndcg: NDCG@10 of each user who met something new that day, asked at its beginning.
        hits: users of these who met one of the ten they were shown: the feedback.
    """

    policy: PolicyName
    day: date
    model_until: date
    ndcg: list[float]
    hits: int


class Training(_Value):
    """One challenger of one policy.

    Attributes:
        day: in the night after it.
        cause: why it was trained; "start" is the first model, which every policy begins with and no gate judges.
        reason: the rule's sentence.
        promoted: whether it serves from the next day on.
        refused_by: the gates that did not let it pass, each with its reason.
        cpu_seconds: of the training alone; the one figure that the seed does not settle.
    """

    policy: PolicyName
    day: date
    cause: Literal["start", "drift", "age"]
    reason: str
    promoted: bool
    refused_by: list[str]
    cpu_seconds: float


class DriftDay(_Value):
    """What the drift statistic said at the end of one day.

    Attributes:
        psi: the largest index of all features.
        unshifted_psi: the same had nobody's taste been moved.
        drifted, unshifted: features that had drifted, in either case.
    """

    day: date
    psi: float
    unshifted_psi: float
    drifted: list[str]
    unshifted: list[str]


class Incident(_Value):
    """One thing that was planted.

    Attributes:
        day: when it began.
        what: what was done.
        noticed_on: the day on which it was caught; None if it was not.
        noticed_by: by what part of the project; empty if it was not.
        said: what that part said, in its words.
        after: what became of it then.
    """

    kind: IncidentKind
    day: date
    what: str
    noticed_on: date | None = None
    noticed_by: str = ""
    said: list[str] = []
    after: str = ""


class Mean(_Value):
    """A mean over users and days with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


class Summary(_Value):
    """One policy over all days.

    Attributes:
        ndcg: NDCG@10.
        gain: what it has over the model that is never retrained, paired by user and day.
        hit_share: users of whom one of the ten shown was met, of all asked.
        users: users asked, each day's anew.
        trainings, promoted, refused: challengers, the first model included.
        cpu_seconds: of all trainings, each counted as if nobody else had made it.
        mean_age_days: how far the serving model's knowledge lay behind, the mean of all days.
    """

    policy: PolicyName
    ndcg: Mean
    gain: Mean
    hit_share: float
    users: int
    trainings: int
    promoted: int
    refused: int
    cpu_seconds: float
    mean_age_days: float


class Simulation(_Value):
    """All of it, as ``--format json`` prints it and the page draws it."""

    script: Script
    policies: list[Summary]
    incidents: list[Incident]
    served: list[Served]
    trainings: list[Training]
    drift: list[DriftDay]
