"""May this prompt and model be asked? Only if they were accepted, or answer the golden questions no worse."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from lakehouse.lake import Lakehouse
from lakehouse.ledger import LEDGER_FOLDER, Decision
from lakehouse.tables import Movie

if TYPE_CHECKING:
    from models.llm.evaluation import Evaluation
    from models.llm.store import ResponseStore
    from models.llm.weights import ModelRef


def answer_store(lake: Lakehouse) -> ResponseStore:
    """The lake's stored answers."""
    from models.llm.store import ResponseStore

    return ResponseStore(f"{lake.root}/{LEDGER_FOLDER}/llm_responses")


def admit_movie_card(lake: Lakehouse, model: ModelRef) -> None:
    """Let the champion pass; have any other configuration answer the golden questions first, and write the decision.

    Raises:
        ConfigurationRefusedError: it is worse than the champion.
    """
    from models.llm.errors import ConfigurationRefusedError
    from models.llm.evaluation import is_champion
    from models.llm.movie_card import MOVIE_CARD

    if is_champion(MOVIE_CARD, model):
        return
    evaluation = evaluate(lake, MOVIE_CARD.name, model)
    write_down(lake, evaluation)
    if evaluation.verdict.outcome == "refused":
        raise ConfigurationRefusedError.judged(MOVIE_CARD.name, model.name, evaluation.verdict.reason)


def evaluate(lake: Lakehouse, name: str, model: ModelRef, prompt: Path | None = None) -> Evaluation:
    """Have a component answer its golden questions, with its own prompt template or another.

    Raises:
        PromptTemplateError: the template does not fit the component.
    """
    from models.llm.engine import Engine, EngineConfig
    from models.llm.evaluation import evaluate_explain, evaluate_movie_card
    from models.llm.explain import explain
    from models.llm.movie_card import MOVIE_CARD
    from models.llm.titles import Catalogue

    store = answer_store(lake)
    if name == MOVIE_CARD.name:
        card = replace(MOVIE_CARD, template=prompt) if prompt else MOVIE_CARD
        return evaluate_movie_card(card, model=model, store=store, engine=lambda: Engine(model))
    titles = Catalogue(movie.title for movie in lake.latest(Movie).rows())
    # A history makes a long prompt.
    config = EngineConfig(max_model_len=1536)
    reason = explain(titles)
    reason = replace(reason, template=prompt) if prompt else reason
    return evaluate_explain(reason, titles, model=model, store=store, engine=lambda: Engine(model, config))


def accept(evaluation: Evaluation, prompt: Path | None) -> None:
    """Make an evaluated configuration the champion, and the prompt that it was asked with the component's own."""
    from models.llm import evaluation as golden
    from models.llm.component import PROMPTS

    golden.accept(evaluation)
    if prompt is not None:
        shutil.copyfile(prompt, PROMPTS / f"{evaluation.component}.txt")


def write_down(lake: Lakehouse, evaluation: Evaluation) -> None:
    """One row in the ledger's ``decisions`` for each configuration and champion that were compared."""
    verdict = evaluation.verdict
    now = datetime.now(UTC)
    run = f"llm-{evaluation.configuration[:12]}"
    inputs = {
        "model": evaluation.model,
        "metrics": {m.metric: [m.mean, m.low, m.high, m.cases] for m in evaluation.metrics},
        "minus the champion": {c.metric: [c.mean, c.low, c.high, c.cases] for c in verdict.compared},
    }
    lake.ledger.append(
        [
            Decision(
                decision_id=f"{run}/{evaluation.component}/{now.isoformat()}",
                run_id=run,
                gate=f"llm {evaluation.component}",
                passed=verdict.outcome != "refused",
                reason=verdict.reason,
                inputs=json.dumps(inputs, sort_keys=True),
                decided_at=now,
            )
        ]
    )
