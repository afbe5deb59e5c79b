"""Is what the model wrote an answer? It must fit the output model and contradict neither itself nor its row."""

from __future__ import annotations

from datetime import datetime
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from models.llm.component import Component
from models.llm.protocol import Generation
from models.llm.store import Answer
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

#: How often a row is asked again, in a batch and online, when its answer is none.
MAX_REPAIRS = 1


class Attempt(BaseModel):
    """What the model wrote for a row so far.

    Attributes:
        raw: its newest text.
        output: the answer as canonical JSON; None where the text is none.
        problem: what is wrong with the text; None where it is an answer.
        tokens_in, tokens_out: tokens of prompts and texts, earlier attempts included.
    """

    model_config = ConfigDict(frozen=True)

    raw: str
    output: str | None
    problem: str | None
    tokens_in: int
    tokens_out: int

    def after(self, earlier: Attempt) -> Attempt:
        """This attempt with what the earlier ones have cost."""
        return self.model_copy(
            update={
                "tokens_in": self.tokens_in + earlier.tokens_in,
                "tokens_out": self.tokens_out + earlier.tokens_out,
            }
        )


def judge(component: Component[In, Out], row: In, generation: Generation) -> Attempt:
    """Validate a text against the output model and the component's own check; nothing is mended or filled in."""
    output, problem = None, None
    try:
        parsed = component.output.model_validate_json(generation.text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        cut = "" if generation.finished else f" (cut off at {component.sampling.max_tokens} tokens)"
        problem = f"{where}: {first['msg']}{cut}" if where else f"{first['msg']}{cut}"
    else:
        problem = component.check(row, parsed) if component.check else None
        output = parsed.model_dump_json() if problem is None else None
    return Attempt(
        raw=generation.text,
        output=output,
        problem=problem,
        tokens_in=generation.tokens_in,
        tokens_out=generation.tokens_out,
    )


def recheck(component: Component[In, Out], row: In, answer: Answer) -> Answer:
    """A stored answer as today's check sees it: the check is no part of the key, and may have become stricter."""
    output = answer.parsed(component)
    problem = component.check(row, output) if component.check and output is not None else None
    return answer if problem is None else answer.model_copy(update={"output": None, "error": problem})


def answer_of(
    component: Component[In, Out],
    row: In,
    model: ModelRef,
    attempt: Attempt,
    asked_at: datetime,
    *,
    batch: str | None = None,
    place: int | None = None,
) -> Answer:
    """The row of the store for an attempt that is final; ``batch`` and ``place`` say beside what it was asked."""
    return Answer(
        answer_key=component.answer_key(row, model),
        component=component.name,
        model_digest=model.digest,
        prompt_digest=component.prompt_digest,
        schema_digest=component.schema_digest(row),
        sampling_digest=component.sampling_digest,
        row_digest=component.row_digest(row),
        determinism=component.determinism(model),
        batch=batch,
        place=place,
        input=component.canonical_input(row),
        raw=attempt.raw,
        output=attempt.output,
        error=attempt.problem,
        tokens_in=attempt.tokens_in,
        tokens_out=attempt.tokens_out,
        asked_at=asked_at,
    )
