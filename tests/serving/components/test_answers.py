"""The application with a scripted model behind it: what a real one does rarely must be answered just as well."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import values

from models.llm.component import Question, Sampling
from models.llm.errors import EngineStoppedError, PromptTooLongError
from models.llm.explain import explain
from models.llm.movie_card import MOVIE_CARD, MovieCardInput
from models.llm.protocol import Generation
from models.llm.store import ResponseStore
from models.llm.titles import Catalogue
from models.llm.weights import ModelRef
from serving.components.answers import Answers
from serving.components.app import MAX_BODY, make_app
from serving.components.metrics import Metrics

MODEL = ModelRef(path=Path("model"), digest="digest", name="scripted")
GOOD = '{"mood":"funny","audience":"teens"}'
BIG = {"item_id": 1, "title": "Big", "genres": ["Comedy"]}
HEAT = {
    "item": {"item_id": 9, "title": "Heat", "year": 1995, "genres": ["Action"]},
    "history": [{"item_id": 7, "title": "Fargo", "rating": 5.0}],
}
GROUNDED = '{"cites":[7],"reason":"Because you liked Fargo, this one is a story of thieves too, told with patience."}'
COMPONENTS = [MOVIE_CARD, explain(Catalogue(["Heat", "Fargo", "Star Wars"]))]


class ScriptedClient:
    """Answers from a function, and waits for ``gate`` first."""

    def __init__(self, script: Callable[[str], str]) -> None:
        self.script = script
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def generate(self, component: str, question: Question, sampling: Sampling) -> Generation:
        self.asked += 1
        await self.gate.wait()
        return Generation(text=self.script(question.messages[-1].content), tokens_in=5, tokens_out=4, finished=True)

    async def stream(self, component: str, question: Question, sampling: Sampling) -> AsyncIterator[str | Generation]:
        whole = await self.generate(component, question, sampling)
        for piece in (whole.text[:9], whole.text[9:]):
            yield piece
        yield whole


@contextlib.asynccontextmanager
async def service(
    folder: Path, script: Callable[[str], str], *, max_waiting: int = 8, timeout: float = 30
) -> AsyncIterator[tuple[httpx.AsyncClient, ScriptedClient]]:
    model, metrics = ScriptedClient(script), Metrics()
    answers = Answers(MODEL, model, ResponseStore(str(folder)), metrics, max_waiting=max_waiting, timeout=timeout)

    async def healthy() -> bool:
        return True

    async def nothing() -> str:
        return "vllm:up 1\n"

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

    app = make_app(
        COMPONENTS,
        answers,
        metrics,
        healthy=healthy,
        engine_metrics=nothing,
        lifespan=lifespan,  # type: ignore[arg-type]
    )
    await answers.start([component.name for component in COMPONENTS])
    try:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            yield client, model
    finally:
        await answers.close()


def refuses(error: Exception) -> Callable[[str], str]:
    def script(text: str) -> str:
        raise error

    return script


async def ask(client: httpx.AsyncClient, body: object = BIG, name: str = "movie_card") -> httpx.Response:
    return await client.post(f"/components/{name}", json=body)


def test_an_answer_is_asked_for_once_and_kept_for_the_batch(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, lambda _: GOOD) as (client, model):
            assert (await ask(client)).json() == {"mood": "funny", "audience": "teens"}
            assert (await ask(client)).status_code == 200
            assert model.asked == 1
        key = MOVIE_CARD.answer_key(MovieCardInput(item_id=99, title="Big", genres=["Comedy"]), MODEL)
        assert ResponseStore(str(tmp_path)).known([key])[key].output == GOOD
        async with service(tmp_path, refuses(AssertionError("answered before"))) as (client, model):
            assert (await ask(client)).json() == {"mood": "funny", "audience": "teens"}

    asyncio.run(story())


def test_those_who_ask_the_same_at_once_share_one_question(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, lambda _: GOOD) as (client, model):
            model.gate.clear()
            asking = [asyncio.create_task(ask(client)) for _ in range(5)]
            while model.asked == 0:
                await asyncio.sleep(0)
            model.gate.set()
            assert {one.status_code for one in await asyncio.gather(*asking)} == {200}
            assert model.asked == 1

    asyncio.run(story())


def test_more_questions_than_may_wait_are_told_when_to_come_back(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, lambda _: GOOD, max_waiting=2) as (client, model):
            model.gate.clear()
            asking = [asyncio.create_task(ask(client, {**BIG, "title": f"Big {number}"})) for number in range(2)]
            while model.asked < 2:
                await asyncio.sleep(0)
            refused = await ask(client)
            assert (refused.status_code, refused.json()["code"]) == (429, "MR-LLM-BUSY")
            assert int(refused.headers["retry-after"]) >= 1
            model.gate.set()
            assert {one.status_code for one in await asyncio.gather(*asking)} == {200}
            assert (await ask(client)).status_code == 200

    asyncio.run(story())


def test_a_model_that_takes_too_long_is_a_time_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, lambda _: GOOD, timeout=0.05) as (client, model):
            model.gate.clear()
            late = await ask(client)
            assert (late.status_code, late.json()["code"]) == (504, "MR-LLM-TIMEOUT")
            streamed = await client.post("/components/movie_card/stream", json=BIG)
            assert "event: error" in streamed.text and "MR-LLM-TIMEOUT" in streamed.text

    asyncio.run(story())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (EngineStoppedError.during("movie_card", 1, "gone"), 503, "MR-LLM-STOPPED"),
        (PromptTooLongError.over("movie_card", 1, 900, 400), 413, "MR-LLM-PROMPT-LENGTH"),
    ],
)
def test_what_the_model_refuses_is_a_typed_error(tmp_path: Path, error: Exception, status: int, code: str) -> None:
    async def story() -> None:
        async with service(tmp_path, refuses(error)) as (client, _):
            answer = await ask(client)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert (await ask(client)).status_code == status  # and it is not remembered as an answer
        assert not (tmp_path / "_delta_log").exists()

    asyncio.run(story())


@pytest.mark.parametrize(
    "bad",
    [
        "{",
        '{"cites":[8],"reason":"Because you liked Fargo, this one is a story of thieves too."}',
        '{"cites":[7],"reason":"Because you liked Fargo, this is as grand as star wars ever was."}',
        '{"cites":[7],"reason":"This one is a story of thieves too."}',
    ],
)
def test_a_reason_that_rests_on_another_movie_is_repaired_or_refused(tmp_path: Path, bad: str) -> None:
    async def story() -> None:
        async with service(tmp_path / "a", lambda text: GROUNDED if "not a valid answer" in text else bad) as (
            client,
            model,
        ):
            good = await ask(client, HEAT, "explain")
            assert (good.status_code, good.json()["cites"], model.asked) == (200, [7], 2)
        async with service(tmp_path / "b", lambda _: bad) as (client, model):
            refused = await ask(client, HEAT, "explain")
            assert (refused.status_code, refused.json()["code"]) == (502, "MR-LLM-NO-ANSWER")
            assert (await ask(client, HEAT, "explain")).status_code == 502
            assert model.asked == 2  # the second request was answered from memory

    asyncio.run(story())


def test_a_stream_ends_in_the_validated_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path, lambda _: GROUNDED) as (client, _):
            text = (await client.post("/components/explain/stream", json=HEAT)).text
            kinds = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
            assert kinds == ["delta", "delta", "answer"]
            assert '"cites":[7]' in text.splitlines()[-2]

    asyncio.run(story())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"item_id": 1, "title": "Big"}, "genres"),
        ({**BIG, "mood": "funny"}, "mood"),
        ({**HEAT, "history": []}, "item_id"),
        ([], "body"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_field(tmp_path: Path, body: object, said: str) -> None:
    async def story() -> None:
        async with service(tmp_path, refuses(AssertionError("not asked"))) as (client, _):
            answer = await ask(client, body)
            assert (answer.status_code, answer.json()["code"]) == (422, "MR-LLM-REQUEST")
            assert said in answer.json()["message"]

    asyncio.run(story())


def test_a_request_of_any_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    async def story() -> None:
        async def endless() -> AsyncIterator[bytes]:
            for _ in range(100):
                yield b" " * 4096

        async with service(tmp_path, refuses(AssertionError("not asked"))) as (client, _):
            for content in (b" " * (MAX_BODY + 1), endless()):
                answer = await client.post("/components/movie_card", content=content)
                assert (answer.status_code, answer.json()["code"]) == (413, "MR-LLM-REQUEST")

    asyncio.run(story())


def test_requests_are_counted_beside_the_engines_own_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Feast and vLLM may have switched prometheus_client to files that outlive a registry.
    monkeypatch.setattr(values, "ValueClass", values.MutexValue)

    async def story() -> None:
        async with service(tmp_path, lambda _: GOOD) as (client, _):
            await ask(client)
            await ask(client)
            text = (await client.get("/metrics")).text
            assert 'millrace_llm_requests_total{component="movie_card",outcome="ok"} 2.0' in text
            assert 'millrace_llm_from_store_total{component="movie_card"} 1.0' in text
            assert "vllm:up 1" in text
            assert (await client.get("/health")).json()["components"] == ["movie_card", "explain"]

    asyncio.run(story())
