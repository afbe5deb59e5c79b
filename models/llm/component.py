"""What does an LLM component ask, of which row, and under which key is the answer kept?"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from models.llm.determinism import determinism_class
from models.llm.errors import PromptTemplateError
from models.llm.weights import ModelRef

In = TypeVar("In", bound=BaseModel)
Out = TypeVar("Out", bound=BaseModel)

#: Where the components' templates lie, as NAME.txt.
PROMPTS = Path(__file__).parent / "prompts"
#: Characters of one string and entries of one list that reach a prompt; the rest is cut off.
MAX_TEXT = 200
MAX_ENTRIES = 16


class Message(BaseModel):
    """One turn of a conversation, as chat templates take it."""

    model_config = ConfigDict(frozen=True)

    role: Literal["system", "user", "assistant"]
    content: str


class Question(BaseModel):
    """A conversation to go on with, and the JSON schema that guides the answer."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]
    json_schema: dict[str, JsonValue]


class Sampling(BaseModel):
    """How tokens are chosen: greedily by default, so that the same batch gives the same answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    temperature: float = Field(default=0.0, ge=0.0)
    seed: int = Field(default=0, ge=0)
    max_tokens: int = Field(default=64, ge=1, description="Longest answer, in tokens.")


@dataclass(frozen=True)
class Component(Generic[In, Out]):
    """A typed question to a language model: prompt template, input row model, output model, sampling.

    Attributes:
        name: stable name, stored with each answer.
        template: text file of turns under ``[system]``, ``[user]`` and ``[assistant]`` lines; the last is a user turn
            and holds ``{field}`` or ``{field.part}`` placeholders of the input model. Instructions and examples come
            first, so that the engine computes them once for all rows.
        input: row model of what is read. Fields that the template does not name, such as the row's number, enter
            neither the prompt nor the key: rows that differ only in them share one answer.
        output: model of the answer; its JSON schema guides the decoding.
        sampling: how tokens are chosen.
        narrow: what of the schema depends on the row: takes the guiding schema and a row, and gives the row's own.
        check: what is wrong with an answer that fits the schema, such as a contradiction; None if nothing is.

    Raises:
        PromptTemplateError: the file is missing, is not made of turns, or names a field that the input lacks.
    """

    name: str
    template: Path
    input: type[In]
    output: type[Out]
    sampling: Sampling = field(default_factory=Sampling)
    narrow: Callable[[Mapping[str, JsonValue], In], dict[str, JsonValue]] | None = None
    check: Callable[[In, Out], str | None] | None = None

    def __post_init__(self) -> None:
        unknown = sorted(path for path in self._asked_fields if not _has(self.input, path))
        if unknown:
            raise PromptTemplateError.unknown_fields(str(self.template), unknown, list(self.input.model_fields))

    def messages(self, row: In) -> tuple[Message, ...]:
        """The conversation to ask of ``row``, whose values can neither end their quotes nor open a turn."""
        values = self._clean_input(row)
        # One pass, so that a placeholder inside a value stays text.
        content = _PLACEHOLDER.sub(lambda found: _inline(values[found[1]]), self._turns[-1].content)
        return (*self._turns[:-1], Message(role="user", content=content))

    def question(self, row: In) -> Question:
        """What an engine is asked about ``row``."""
        return Question(messages=self.messages(row), json_schema=self.schema_of(row))

    def repair(self, row: In, raw: str, problem: str) -> Question:
        """The question that shows a model its unusable answer and asks once more."""
        # Both texts hold what a model wrote, so they are cleaned and escaped like any other data.
        bad, why = (one_line(text).translate(_MARKUP) for text in (raw, problem))
        request = f"That is not a valid answer: {why} Answer again, with one JSON object only."
        again = (Message(role="assistant", content=bad), Message(role="user", content=request))
        return Question(messages=(*self.messages(row), *again), json_schema=self.schema_of(row))

    @cached_property
    def schema(self) -> dict[str, JsonValue]:
        """JSON schema that guides the decoding: the output model's, without the titles and texts that guide nothing."""
        return _guiding(self.output.model_json_schema())

    def schema_of(self, row: In) -> dict[str, JsonValue]:
        """JSON schema that guides the decoding of this row's answer."""
        return self.narrow(self.schema, row) if self.narrow else self.schema

    @cached_property
    def prompt_digest(self) -> str:
        """Digest of the template file's text."""
        return _digest(self._text)

    def schema_digest(self, row: In) -> str:
        """Digest of the row's guiding schema, property order included: it is the order in which fields are decided."""
        return _digest(_canonical(self.schema_of(row))) if self.narrow else self._schema_digest

    @cached_property
    def sampling_digest(self) -> str:
        return _digest(_canonical(self.sampling.model_dump(mode="json")))

    def canonical_input(self, row: In) -> str:
        """What is asked of ``row``, as JSON with sorted keys: the fields that the template names, cleaned."""
        return json.dumps(self._clean_input(row), ensure_ascii=False, sort_keys=True, separators=(",", ":"))

    def answer_key(self, row: In, model: ModelRef) -> str:
        """Key of the answer: SHA-256 over component, model, prompt, schema, sampling, determinism class and row."""
        return _digest("\n".join((self.digest(model), self.schema_digest(row), self.row_digest(row))))

    def digest(self, model: ModelRef) -> str:
        """What all of the component's answers by that model share: SHA-256 over all of the key but the row."""
        return _digest(f"{self.configuration(model)}\n{self.determinism(model)}")

    def configuration(self, model: ModelRef) -> str:
        """What is chosen and can be better or worse: SHA-256 over component, model, prompt, schema and sampling."""
        parts = (self.name, model.digest, self.prompt_digest, self._schema_digest, self.sampling_digest)
        return _digest("\n".join(parts))

    def determinism(self, model: ModelRef) -> str:
        """What of an answer is promised to repeat, and where: see ``models.llm.determinism``."""
        return determinism_class(greedy=self.sampling.temperature == 0, dtype=model.dtype)

    def batch_digest(self, rows: Sequence[In], model: ModelRef) -> str:
        """Which rows are asked together, in their order."""
        return _digest("\n".join(self.answer_key(row, model) for row in rows))

    def row_digest(self, row: In) -> str:
        return _digest(self.canonical_input(row))

    @cached_property
    def _schema_digest(self) -> str:
        return _digest(_canonical(self.schema))

    @cached_property
    def _text(self) -> str:
        try:
            return self.template.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise PromptTemplateError.missing(str(self.template)) from error

    @cached_property
    def _turns(self) -> tuple[Message, ...]:
        turns = tuple(_parse_turns(self._text))
        if not turns:
            raise PromptTemplateError.turns(str(self.template), "holds no turn")
        if turns[-1].role != "user":
            raise PromptTemplateError.turns(str(self.template), f"ends in a turn of the {turns[-1].role}")
        return turns

    @cached_property
    def _asked_fields(self) -> frozenset[str]:
        return frozenset(_PLACEHOLDER.findall(self._turns[-1].content))

    def _clean_input(self, row: In) -> dict[str, JsonValue]:
        values = row.model_dump(mode="json")
        return {path: _clean_value(_at(values, path)) for path in sorted(self._asked_fields)}


_PLACEHOLDER = re.compile(r"\{([a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)*)\}")

_WORDS = re.compile(r"\w[\w' -]*")
_TURN = re.compile(r"^\[(system|user|assistant)\]$", re.MULTILINE)

# Chat templates mark turns with these, as in <|im_end|>, </s> or [INST]; in a JSON string their escapes mean the same.
_MARKUP = str.maketrans({char: f"\\u{ord(char):04x}" for char in "<>[]"})


def _has(model: type[BaseModel], path: str) -> bool:
    """Whether the model has a field at that path, such as ``title`` or ``item.title``."""
    name, _, rest = path.partition(".")
    field = model.model_fields.get(name)
    if field is None or not rest:
        return field is not None
    return (
        isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel) and _has(field.annotation, rest)
    )


def _at(values: JsonValue, path: str) -> JsonValue:
    for name in path.split("."):
        assert isinstance(values, dict)
        values = values[name]
    return values


def _parse_turns(text: str) -> Iterator[Message]:
    pieces = _TURN.split(text)
    for role, content in zip(pieces[1::2], pieces[2::2], strict=True):
        yield Message.model_validate({"role": role, "content": content.strip()})


def _clean_value(value: JsonValue) -> JsonValue:
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, list):
        return [_clean_value(entry) for entry in value[:MAX_ENTRIES]]
    if isinstance(value, Mapping):
        return {one_line(key): _clean_value(entry) for key, entry in value.items()}
    return value


def one_line(text: str) -> str:
    """One line of printable text: control, format and unassigned characters become spaces, overlong text is cut."""
    printable = "".join(
        " " if unicodedata.category(char)[0] in "CZ" else char for char in unicodedata.normalize("NFC", text)
    )
    line = " ".join(printable.split())
    return line if len(line) <= MAX_TEXT else line[: MAX_TEXT - 1] + "…"


def _inline(value: JsonValue) -> str:
    """A value as JSON; a list as its entries with commas between, plain words among them without quotes.

    The small model labels a bare ``Comedy, Horror`` markedly better than the same as JSON. An object is its fields'
    names and values with commas between, and a list of objects has one on each line.
    """
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list) and any(isinstance(entry, Mapping) for entry in value):
        return "".join(f"\n- {_inline(entry)}" for entry in value)
    if isinstance(value, list):
        return ", ".join(
            entry if isinstance(entry, str) and _WORDS.fullmatch(entry) else _inline(entry) for entry in value
        )
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).translate(_MARKUP)
    return json.dumps(value, ensure_ascii=False)


def _guiding(schema: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """``schema`` without ``title`` and ``description`` keywords; fields of those names stay."""
    kept: dict[str, JsonValue] = {}
    for keyword, value in schema.items():
        if keyword in ("title", "description"):
            continue
        if keyword in ("properties", "$defs") and isinstance(value, Mapping):
            kept[keyword] = {
                name: _guiding(part) if isinstance(part, Mapping) else part for name, part in value.items()
            }
        elif isinstance(value, Mapping):
            kept[keyword] = _guiding(value)
        elif isinstance(value, list):
            kept[keyword] = [_guiding(part) if isinstance(part, Mapping) else part for part in value]
        else:
            kept[keyword] = value
    return kept


def _canonical(value: JsonValue) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
