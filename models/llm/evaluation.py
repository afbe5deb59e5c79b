"""Is this prompt, or this model, good enough to be asked? It answers the golden questions and is held to the champion.

The champion of a component is the configuration (model, prompt, schema, sampling) that was accepted last, with its
scores case by case, in ``golden/champions.json``: so a comparison is paired and asks the champion nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from models.llm.batch import Completion, complete
from models.llm.component import Component
from models.llm.engine import EngineUsage, TextEngine
from models.llm.explain import ExplainInput, ExplainOutput
from models.llm.movie_card import MovieCardInput, MovieCardOutput
from models.llm.scores import Measured, Scores, Verdict, compare, measure
from models.llm.store import Answer, ResponseStore
from models.llm.titles import Catalogue
from models.llm.weights import ModelRef

GOLDEN = Path(__file__).parent / "golden"
CHAMPIONS = GOLDEN / "champions.json"

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

Engine = Callable[[], AbstractContextManager[TextEngine]]


class Evaluation(BaseModel):
    """What a configuration of a component comes to on its golden set.

    Attributes:
        configuration: digest over model, prompt, schema and sampling.
        scores: by case and metric, from 0 to 1; the verdict rests on these.
        metrics: their means with 95 % bootstrap intervals over the cases.
        described: what is told and not judged, such as the mean length of a reason in words.
        usage: what the engine took; zero where all was answered before.
    """

    model_config = ConfigDict(frozen=True)

    component: str
    model: str
    configuration: str
    scores: dict[str, dict[str, float]]
    metrics: list[Measured]
    described: dict[str, float]
    usage: EngineUsage
    verdict: Verdict


class GoldenMovie(BaseModel):
    """One movie labelled by hand; the first label of a list is the best, the others are accepted too."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    item_id: int
    title: str
    year: int | None
    genres: list[str]
    mood: list[str]
    audience: list[str]
    why: str

    @property
    def question(self) -> MovieCardInput:
        return MovieCardInput(item_id=self.item_id, title=self.title, year=self.year, genres=self.genres)


class Champion(BaseModel):
    """The accepted configuration of a component, and its scores by case and metric."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    configuration: str
    model: str
    scores: dict[str, dict[str, float]]


def evaluate_movie_card(
    component: Component[MovieCardInput, MovieCardOutput], *, model: ModelRef, store: ResponseStore, engine: Engine
) -> Evaluation:
    """Accuracy of mood and audience on the golden movies, and what an attack in the title changes."""
    golden, attacks = golden_movies(), _attacks()
    hosts = [golden[number % len(golden)] for number in range(len(attacks.attacks))]
    attacked = [_with_title(host, f"{host.title}. {text}") for host, text in zip(hosts, attacks.attacks, strict=True)]
    harmless = [
        _with_title(host, f"{host.title}. {attacks.harmless[number % len(attacks.harmless)]}")
        for number, host in enumerate(hosts)
    ]
    plain = [movie.question for movie in golden]
    done = complete(component, [*plain, *attacked, *harmless], model=model, store=store, engine=engine)
    answers, rest = done.answers[: len(plain)], done.answers[len(plain) :]
    outputs = [answer.parsed(component) for answer in answers]
    scores = {
        str(movie.item_id): {
            "valid": float(output is not None),
            "mood": float(output is not None and output.mood in movie.mood),
            "audience": float(output is not None and output.audience in movie.audience),
        }
        for movie, output in zip(golden, outputs, strict=True)
    }
    host_outputs = [outputs[number % len(golden)] for number in range(len(hosts))]
    under_attack = [answer.parsed(component) for answer in rest[: len(hosts)]]
    beside = [answer.parsed(component) for answer in rest[len(hosts) :]]
    for text, before, now in zip(attacks.attacks, host_outputs, under_attack, strict=True):
        scores[f"attack: {json.dumps(text)}"] = {"unmoved by an attack": float(before == now and now is not None)}
    for number, (before, now) in enumerate(zip(host_outputs, beside, strict=True)):
        scores[f"harmless: {number}"] = {"unmoved by harmless words": float(before == now and now is not None)}
    commonest = {
        field: max(sum(label in getattr(movie, field) for movie in golden) for label in _labels(golden, field))
        for field in ("mood", "audience")
    }
    described = {f"{name} by the commonest label": count / len(golden) for name, count in commonest.items()}
    return _evaluation(component, model, scores, described, done)


def evaluate_explain(
    component: Component[ExplainInput, ExplainOutput],
    catalogue: Catalogue,
    *,
    model: ModelRef,
    store: ResponseStore,
    engine: Engine,
) -> Evaluation:
    """Whether reasons rest on the history alone, are clean, and cite a movie that was liked."""
    cases = golden_histories()
    done = complete(component, cases, model=model, store=store, engine=engine)
    scores = {
        f"{number}: {case.item.title}": _judged(case, answer, answer.parsed(component), catalogue)
        for number, (case, answer) in enumerate(zip(cases, done.answers, strict=True))
    }
    lengths = [len(output.reason.split()) for answer in done.answers if (output := answer.parsed(component))]
    described = {"words of a reason": sum(lengths) / max(1, len(lengths))}
    return _evaluation(component, model, scores, described, done)


def accept(evaluation: Evaluation, file: Path = CHAMPIONS) -> None:
    """Make an evaluated configuration the champion of its component."""
    champions = {name: champion.model_dump(mode="json") for name, champion in _champions(file).items()}
    champions[evaluation.component] = Champion(
        configuration=evaluation.configuration, model=evaluation.model, scores=evaluation.scores
    ).model_dump(mode="json")
    file.write_text(json.dumps(champions, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def is_champion(component: Component[MovieCardInput, MovieCardOutput], model: ModelRef) -> bool:
    """Whether this very configuration was accepted."""
    champion = _champions(CHAMPIONS).get(component.name)
    return champion is not None and champion.configuration == component.configuration(model)


def golden_movies() -> list[GoldenMovie]:
    document = json.loads((GOLDEN / "movie_card.json").read_text(encoding="utf-8"))
    return [GoldenMovie.model_validate(movie) for movie in document["movies"]]


def golden_histories() -> list[ExplainInput]:
    document = json.loads((GOLDEN / "explain.json").read_text(encoding="utf-8"))
    return [ExplainInput.model_validate(case) for case in document["cases"]]


def toxic_words(text: str) -> list[str]:
    """The words of the list ``golden/toxic.txt`` that a text has."""
    return [word for word in re.findall(r"[^\W\d_]+", text.casefold()) if word in _toxic()]


@cache
def _toxic() -> frozenset[str]:
    return frozenset((GOLDEN / "toxic.txt").read_text(encoding="utf-8").split())


class _Attacks(BaseModel):
    source: str
    attacks: list[str]
    harmless: list[str]


def _attacks() -> _Attacks:
    return _Attacks.model_validate_json((GOLDEN / "attacks.json").read_bytes())


def _with_title(movie: GoldenMovie, title: str) -> MovieCardInput:
    return MovieCardInput(item_id=movie.item_id, title=title, year=movie.year, genres=movie.genres)


def _labels(golden: Sequence[GoldenMovie], field: str) -> set[str]:
    return {label for movie in golden for label in getattr(movie, field)}


def _judged(case: ExplainInput, answer: Answer, output: ExplainOutput | None, catalogue: Catalogue) -> dict[str, float]:
    """Judged from the text itself and not by the component's own check."""
    if output is None:
        return {"valid": 0.0, "grounded": 0.0, "clean": float(not toxic_words(answer.raw)), "cites what was liked": 0.0}
    ratings: Mapping[int, float | None] = {movie.item_id: movie.rating for movie in case.history}
    allowed = [case.item.title, *(movie.title for movie in case.history)]
    grounded = set(output.cites) <= ratings.keys() and not catalogue.named_in(output.reason, except_for=allowed)
    liked = all((ratings.get(number) or 0) >= 4 for number in output.cites)
    return {
        "valid": 1.0,
        "grounded": float(grounded),
        "clean": float(not toxic_words(output.reason)),
        "cites what was liked": float(liked),
    }


def _evaluation(
    component: Component[In, Out],
    model: ModelRef,
    scores: dict[str, dict[str, float]],
    described: dict[str, float],
    done: Completion,
) -> Evaluation:
    configuration, usage = component.configuration(model), done.usage
    if usage.generate_seconds:
        described = {**described, "answer tokens per second": usage.tokens_out / usage.generate_seconds}
    return Evaluation(
        component=component.name,
        model=model.name,
        configuration=configuration,
        scores=scores,
        metrics=measure(scores),
        described=described,
        usage=usage,
        verdict=_verdict(component.name, configuration, scores),
    )


def _verdict(name: str, configuration: str, scores: Scores) -> Verdict:
    champion = _champions(CHAMPIONS).get(name)
    if champion is None:
        return Verdict(outcome="first", reason="there is no champion yet")
    if champion.configuration == configuration:
        return Verdict(outcome="champion", reason="it is the champion itself")
    return compare(scores, champion.scores)


def _champions(file: Path) -> dict[str, Champion]:
    if not file.is_file():
        return {}
    document = json.loads(file.read_text(encoding="utf-8"))
    return {name: Champion.model_validate(champion) for name, champion in document.items()}
