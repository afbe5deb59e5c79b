"""How good is a model on these versions? Trains and compares; a request and an answer are one line of JSON each.

Run as a file, in the folder of the code that is asked about: ``python -P tasks/midpoint.py``. It needs nothing of that
code but the tasks themselves, so that it also asks code which is older than this file.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime


def main() -> None:
    """Answer requests until standard input ends. What libraries print goes to standard error."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        from flytekit.loggers import logger

        logger.setLevel("ERROR")  # it notes what a cluster's branches can't look into
        for line in sys.stdin:
            try:
                reply: dict[str, object] = {"metrics": measured(json.loads(line))}
            except Exception as error:
                reply = {"error": _told(error)}
            print(json.dumps(reply), file=out, flush=True)


def measured(request: Mapping[str, object]) -> dict[str, float]:
    """The metrics of one training by name, as a run has them. Answers that are cached are not computed again.

    Args:
        request: ``tables`` (for each its ``uri`` and ``version``), ``day``, ``holdout_days``, ``seed``, ``champion``.
    """
    from features.tables import ItemStats, UserStats
    from lakehouse.snapshot import Snapshot
    from lakehouse.tables import Movie, MovieCard, Rating, User
    from tasks.decide import Champion
    from tasks.features import build_training_set
    from tasks.train import compare, train

    tables, holdout_days, seed = request["tables"], request["holdout_days"], request["seed"]
    assert isinstance(tables, dict)
    assert isinstance(holdout_days, int)
    assert isinstance(seed, int)
    at = {name: (str(pin["uri"]), int(pin["version"])) for name, pin in tables.items()}
    movies = Snapshot(*at[Movie.contract.table], Movie)
    champion = Champion.model_validate(request["champion"])
    training_set = build_training_set(
        ratings=Snapshot(*at[Rating.contract.table], Rating),
        users=Snapshot(*at[User.contract.table], User),
        movies=movies,
        user_stats=Snapshot(*at[UserStats.contract.table], UserStats),
        item_stats=Snapshot(*at[ItemStats.contract.table], ItemStats),
        cards=Snapshot(*at[MovieCard.contract.table], MovieCard),
        day=datetime.fromisoformat(str(request["day"])),
        holdout_days=holdout_days,
    )
    model = train(training_set=training_set, champion=champion, seed=seed)
    comparison = compare(training_set=training_set, movies=movies, model=model, champion=champion)
    return {f"{score.contender} {score.metric}": score.value for score in comparison.scores}


def _told(error: BaseException) -> str:
    """The sentence of the error of ours that is behind it, else its first line."""
    from lakehouse.errors import MillraceError, first_line

    known = next((one for one in _chain(error) if isinstance(one, MillraceError)), None)
    return known.message.rstrip(".") if known else f"{type(error).__name__}: {first_line(error)}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


if __name__ == "__main__":
    main()
