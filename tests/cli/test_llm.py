"""`millrace llm`: what it says of a prompt, and that it refuses what is worse."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli.main import main
from lakehouse import Lakehouse
from lakehouse.ledger import Decision
from models.llm import evaluation
from models.llm.component import PROMPTS, Question
from models.llm.engine import EngineUsage, Generation


class Serious(AbstractContextManager["Serious"]):
    """An engine that calls every movie serious and for adults."""

    usage, batch_size = EngineUsage(), 1000

    def __init__(self, *_: object) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def generate(self, component: object, questions: Sequence[Question]) -> Iterator[Generation]:
        for _ in questions:
            text = json.dumps({"mood": "serious", "audience": "adults"})
            yield Generation(text=text, tokens_in=1, tokens_out=1, finished=True)


@pytest.fixture
def no_champion(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "champions.json"
    monkeypatch.setattr(evaluation, "CHAMPIONS", file)
    monkeypatch.setattr("models.llm.engine.Engine", Serious)
    return file


def run(lake: Lakehouse, *words: str) -> Result:
    return CliRunner().invoke(main, ["--lake", lake.root, "llm", *words])


def test_an_evaluation_prints_metrics_with_intervals_and_writes_a_decision(lake: Lakehouse, no_champion: Path) -> None:
    done = run(lake, "evaluate")
    assert done.exit_code == 0, done.output
    assert "mood" in done.output and " to " in done.output and "first: there is no champion yet" in done.output
    shown = json.loads(run(lake, "evaluate", "--format", "json").stdout)
    assert {m["metric"] for m in shown["metrics"]} >= {"valid", "mood", "audience", "unmoved by an attack"}
    assert {decision.gate for decision in lake.ledger.read(Decision)} == {"llm movie_card"}


def test_a_prompt_that_is_worse_is_refused_and_not_accepted(
    lake: Lakehouse, no_champion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = {str(m.item_id): {"mood": 1.0, "audience": 1.0} for m in evaluation.golden_movies()}
    champion = evaluation.Champion(configuration="c", model="m", scores=right)
    before = json.dumps({"movie_card": champion.model_dump(mode="json")})
    no_champion.write_text(before)
    template = (PROMPTS / "movie_card.txt").read_text(encoding="utf-8")
    other = tmp_path / "other.txt"
    other.write_text(template.replace("You label movies.", "Label movies."), encoding="utf-8")
    done = run(lake, "evaluate", "--prompt", str(other), "--accept")
    assert done.exit_code == 1
    assert "refused" in done.output and "MR-LLM-WORSE" in done.output
    assert no_champion.read_text() == before
    assert (PROMPTS / "movie_card.txt").read_text(encoding="utf-8") == template
    (decision,) = lake.ledger.read(Decision)
    assert not decision.passed


def test_a_template_that_does_not_fit_is_explained(lake: Lakehouse, no_champion: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("[user]\n{plot}", encoding="utf-8")
    done = run(lake, "evaluate", "--prompt", str(other))
    assert done.exit_code == 1 and "MR-LLM-PROMPT" in done.output


def test_a_port_that_is_taken_is_said_before_anything_starts() -> None:
    import socket

    from models.llm.errors import ListenError
    from serving.components.service import _listening

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError, match="can't be served on"):
        _listening("127.0.0.1", taken.getsockname()[1])


def test_the_manifest_gives_the_command_options_that_it_has() -> None:
    import yaml

    from cli.llm import serve

    file = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base" / "llm.yaml"
    deployment, service, _ = yaml.safe_load_all(file.read_text(encoding="utf-8"))  # and the disk of the models
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][:3] == ["millrace", "llm", "serve"]
    context = serve.make_context("serve", container["args"][3:])
    assert context.params["port"] == container["ports"][0]["containerPort"] == service["spec"]["ports"][0]["port"]
