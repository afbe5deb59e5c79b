"""How is a question asked of vLLM's server? One chat completion, guided by its schema; whole or in pieces."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
from pydantic import BaseModel

from models.llm.component import Question, Sampling
from models.llm.errors import EngineStoppedError, PromptTooLongError
from models.llm.protocol import Generation
from serving.components.server import SERVED

_COMPLETIONS = "/v1/chat/completions"
_LENGTHS = re.compile(r"(\d+)")


class VllmClient:
    """Asks one server; as many questions at once as there are.

    Args:
        url: of the server, without a path.
        timeout: seconds that one answer may take, or one piece of a stream.
    """

    def __init__(self, url: str, *, timeout: float) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
            headers={"content-type": "application/json"},
            trust_env=False,
        )

    def move(self, url: str) -> None:
        """Ask another server from now on."""
        self._http.base_url = httpx.URL(url)

    async def close(self) -> None:
        await self._http.aclose()

    async def healthy(self) -> bool:
        try:
            return (await self._http.get("/health", timeout=2)).status_code == 200
        except httpx.HTTPError:
            return False

    async def metrics(self) -> str:
        """vLLM's own metrics in Prometheus's text; empty while it does not answer."""
        try:
            return (await self._http.get("/metrics", timeout=2)).text
        except httpx.HTTPError:
            return ""

    async def generate(self, component: str, question: Question, sampling: Sampling) -> Generation:
        """The model's whole text.

        Raises:
            PromptTooLongError: the prompt leaves no room for its answer.
            EngineStoppedError: the server is gone, or went while it answered.
            TimeoutError: it took too long.
        """
        try:
            response = await self._http.post(_COMPLETIONS, content=_body(question, sampling, stream=False))
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except httpx.HTTPError as error:
            raise _stopped(component, error) from error
        if response.status_code != 200:
            raise _refused(component, response.status_code, response.text)
        reply = _Reply.model_validate_json(response.content)
        choice = reply.choices[0]
        return Generation(
            text=choice.message.content or "",
            tokens_in=reply.usage.prompt_tokens,
            tokens_out=reply.usage.completion_tokens,
            finished=choice.finish_reason == "stop",
        )

    async def stream(self, component: str, question: Question, sampling: Sampling) -> AsyncIterator[str | Generation]:
        """The text piece by piece, and at the end the whole of it; errors as of ``generate``."""
        text, finished, usage = "", False, None
        try:
            async with self._http.stream(
                "POST", _COMPLETIONS, content=_body(question, sampling, stream=True)
            ) as response:
                if response.status_code != 200:
                    raise _refused(component, response.status_code, (await response.aread()).decode(errors="replace"))
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    piece = _Piece.model_validate_json(line.removeprefix("data: "))
                    usage = piece.usage or usage
                    for choice in piece.choices:
                        finished = finished or choice.finish_reason == "stop"
                        if choice.delta.content:
                            text += choice.delta.content
                            yield choice.delta.content
        except httpx.TimeoutException as error:
            raise TimeoutError from error
        except (httpx.HTTPError, ValueError) as error:
            raise _stopped(component, error) from error
        if usage is None:
            raise EngineStoppedError.during(component, 1, "its stream broke off")
        yield Generation(
            text=text, tokens_in=usage.prompt_tokens, tokens_out=usage.completion_tokens, finished=finished
        )


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None


class _Reply(BaseModel):
    choices: list[_Choice]
    usage: _Usage


class _PieceChoice(BaseModel):
    delta: _Message
    finish_reason: str | None = None


class _Piece(BaseModel):
    choices: list[_PieceChoice]
    usage: _Usage | None = None


def _body(question: Question, sampling: Sampling, *, stream: bool) -> bytes:
    document: dict[str, object] = {
        "model": SERVED,
        "messages": [message.model_dump() for message in question.messages],
        "temperature": sampling.temperature,
        "seed": sampling.seed,
        "max_completion_tokens": sampling.max_tokens,
        "structured_outputs": {"json": question.json_schema},
    }
    if stream:
        document |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(document).encode()


def _refused(component: str, status: int, text: str) -> PromptTooLongError | EngineStoppedError:
    """What vLLM's refusal means: a prompt that is too long, or a server that is of no use."""
    if status == 400 and ("context length" in text or "maximum model length" in text or "max_model_len" in text):
        numbers = [int(number) for number in _LENGTHS.findall(text)]
        return PromptTooLongError.over(component, 1, max(numbers, default=0), min(numbers, default=0))
    return EngineStoppedError.during(component, 1, f"its server answered {status}: {text[:200]}")


def _stopped(component: str, error: Exception) -> EngineStoppedError:
    return EngineStoppedError.during(component, 1, f"{type(error).__name__}: its server can't be reached")
