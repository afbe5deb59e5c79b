"""Does the model still say what is on record? Whole batches are asked again, in their order, and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from models.llm.batch import ask_in_batches
from models.llm.component import Component
from models.llm.engine import TextEngine
from models.llm.store import Answer, ResponseStore
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)


class Replayed(BaseModel):
    """What a replay found.

    Attributes:
        determinism: the class that is promised, see ``models.llm.determinism``; answers of another class have other
            keys and are not compared.
        batches, answers: how many were asked again.
        skipped: batches on record that can't be asked again as they were: some of their rows are not at hand, or
            another writer's answer took the place of one of theirs.
        different: input, text on record and text now of each answer that differs.
    """

    model_config = ConfigDict(frozen=True)

    determinism: str
    batches: int
    answers: int
    skipped: int
    different: list[tuple[str, str, str]]


def replay(
    component: Component[In, Out],
    rows: Sequence[In],
    *,
    model: ModelRef,
    store: ResponseStore,
    engine: Callable[[], AbstractContextManager[TextEngine]],
    batches: int,
) -> Replayed:
    """Ask up to ``batches`` batches of these rows again; nothing is stored."""
    by_key = {component.answer_key(row, model): row for row in rows}
    recorded: dict[str, dict[int, Answer]] = {}
    for answer in store.known(by_key).values():
        if answer.batch is not None and answer.place is not None:
            recorded.setdefault(answer.batch, {})[answer.place] = answer
    whole = {
        name: [answers[place] for place in sorted(answers)]
        for name, answers in sorted(recorded.items(), key=lambda item: min(a.asked_at for a in item[1].values()))
        if component.batch_digest([by_key[answers[p].answer_key] for p in sorted(answers)], model) == name
    }
    chosen = list(whole.values())[:batches]
    different = []
    if chosen:
        with engine() as running:
            for before in chosen:
                again = [by_key[answer.answer_key] for answer in before]
                now = [answer for answers in ask_in_batches(component, again, model, running) for answer in answers]
                different += [(a.input, a.raw, b.raw) for a, b in zip(before, now, strict=True) if a.raw != b.raw]
    return Replayed(
        determinism=component.determinism(model),
        batches=len(chosen),
        answers=sum(map(len, chosen)),
        skipped=len(recorded) - len(whole),
        different=different,
    )
