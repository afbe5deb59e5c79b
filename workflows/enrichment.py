"""The language model's job: a card for each new movie, as soon as the movies table has a new version.

    pyflyte -c flyte.yaml run workflows/enrichment.py enrichment --day 1998-04-20

A movie that was answered under the same model, prompt, schema and sampling is never asked again, and without a new
movie no engine starts: the launch plan may look as often as it likes.
"""

from __future__ import annotations

from datetime import datetime

from tasks.compiled import workflow
from tasks.enrich import LlmUsage, enrich
from tasks.lake import open_lake
from tasks.standing import published_movies


@workflow
def enrichment(day: datetime = datetime(1998, 4, 20), model: str = "") -> LlmUsage:
    """Ask the language model about the movies that have no card yet, and publish the cards.

    Args:
        day: the day (UTC) that the cards belong to.
        model: folder of a Hugging Face model; empty for the small default one.

    Returns:
        What asking took: questions, answers from the store, tokens, seconds.
    """
    lake = open_lake()
    enriched = enrich(lake=lake, movies=published_movies(lake=lake), day=day, model=model)
    return enriched.usage
