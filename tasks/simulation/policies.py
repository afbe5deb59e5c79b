"""Who retrains when? Four policies, each of them the nightly job's own rule with other bounds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import NamedTuple

from tasks.decide import FeatureShift, RetrainDecision, time_to_retrain
from tasks.simulation.model import PolicyName

#: A bound that nothing reaches.
_NEVER = 10**9


class Policy(NamedTuple):
    """A name, and what of the rule is switched on.

    Attributes:
        answers_drift: whether drift retrains.
        after_days: the age at which a champion is retrained; None for no age.
    """

    name: PolicyName
    answers_drift: bool = False
    after_days: int | None = None

    def decide(
        self,
        trained_until: datetime,
        drift_answered: date | None,
        drift: Sequence[FeatureShift],
        day: date,
        cutoff: datetime,
    ) -> RetrainDecision:
        """What the rule says at the end of a day; of new ratings alone no policy here retrains."""
        return time_to_retrain(
            trained_until,
            drift_answered,
            drift if self.answers_drift else [],
            0,
            day,
            cutoff,
            retrain_after_ratings=_NEVER,
            retrain_after_days=_NEVER if self.after_days is None else self.after_days,
        )


POLICIES = (Policy("never"), Policy("weekly", after_days=7), Policy("nightly", after_days=1), Policy("on drift", True))
