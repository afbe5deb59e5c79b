"""Did the service serve what the lake says? A sample of the features in its answers against the offline path."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from features.store import FeatureStore
from lakehouse.errors import MAX_EXAMPLES
from lakehouse.lake import Lakehouse
from lakehouse.ledger import Decision
from serving.served import read_served

#: Of the ledger's decisions.
GATE = "served parity"


class ServedParity(BaseModel):
    """What a comparison came to.

    Attributes:
        compared: values compared, that is views of an answer times features.
        different: values that differ from what the version, at its instant, says.
        unknown: views of an answer whose version is gone or was redacted since.
        examples: at most five of the differences, one sentence each.
    """

    model_config = ConfigDict(frozen=True)

    compared: int = 0
    different: int = 0
    unknown: int = 0
    examples: list[str] = []


def compare_served(lake: Lakehouse, state: Path, at: datetime) -> ServedParity:
    """Compare a sample of what was served last, and write the outcome into the ledger; nothing if nothing was served.

    Args:
        lake: gets the decision.
        state: the folder that the service and the feature store keep their files in.
        at: the instant of the decision (UTC); it also seeds the draw.

    Raises:
        ServingLogError, UnknownViewError: see features.parity.check_served.
    """
    log = read_served(state / "serving")
    if not log.num_rows:
        return ServedParity()
    from features.parity import check_served

    reports = check_served(FeatureStore.open(state), log, seed=int(at.timestamp()))
    found = ServedParity(
        compared=sum(one.compared for one in reports),
        different=sum(one.different for one in reports),
        unknown=sum(one.unknown for one in reports),
        examples=[example for one in reports for example in one.examples][:MAX_EXAMPLES],
    )
    name = f"{GATE}/{at.isoformat()}"
    lake.ledger.append(
        [
            Decision(
                decision_id=name,
                run_id=name,
                gate=GATE,
                passed=found.different == 0,
                reason=" ".join(
                    [f"{found.different} of {found.compared} values served differ from the lake's.", *found.examples]
                ),
                inputs=json.dumps(found.model_dump(exclude={"examples"})),
                decided_at=at,
            )
        ]
    )
    return found
