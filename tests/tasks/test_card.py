"""A model card says what the ledger says, and names the row; a number without one is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from html import unescape

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow import MlflowClient

from cli.main import main
from features.drift import DriftRow
from lakehouse import Lakehouse
from lakehouse.ledger import Approval, Cost, Decision, Deployment, LlmCost, Metric, Promotion, Publication, Run
from models.errors import RegistryError
from models.registry import REGISTERED_MODEL, quiet_mlflow, tracking_uri
from tasks.card import as_html, as_json, as_text, model_card, technical_file
from tasks.card.facts import Document, Fact, Section, Source, check, cite
from tasks.errors import UnsourcedError

AT = datetime(1998, 4, 21, tzinfo=UTC)
DIGEST = "ab" * 32

Make = Callable[[Lakehouse, str], Document]


def run(number: int = 1, digest: str = DIGEST, ndcg: float = 0.2617) -> Run:
    return Run(
        run_id=f"run-{number}",
        execution=f"local-{number}",
        workflow="nightly",
        day=date(1998, 4, 19 + number),
        parameters=json.dumps({"holdout_days": "14"}),
        seed=7,
        code_digest="c0de",
        commit="c0ffee",
        lock_digest="10c4",
        inputs=["ratings@2"],
        outputs=["ratings@2"],
        artifacts=json.dumps({"model": digest, "training_set": "7ra1"}),
        metrics=json.dumps({"challenger NDCG@10": ndcg, "popularity NDCG@10": 0.2}),
        verdict="promoted: All 2 gates passed.",
        report="report.html",
        seconds=61.5,
        finished_at=AT,
    )


def promotion(version: int = 1, digest: str = DIGEST) -> Promotion:
    return Promotion(
        promotion_id=f"1998-04-{19 + version}/{digest}",
        day=date(1998, 4, 19 + version),
        model_digest=digest,
        model_path="models/x",
        registry_version=version,
        trained_until=datetime(1998, 4, 6, 23, 48, 30, tzinfo=UTC),
        promoted_at=AT.replace(hour=version),
    )


def rest() -> list[object]:
    return [
        Decision(
            decision_id="run-1/fair by gender",
            run_id="run-1",
            gate="fair by gender",
            passed=True,
            reason="M has 0.62 of the NDCG@10 of F.",
            inputs=json.dumps({"ratio": 0.62, "NDCG@10 of 25-39": 0.21}),
            decided_at=AT,
        ),
        Publication(
            publication_id="ratings/1998-04-20@2",
            table_name="ratings",
            batch_id="1998-04-20",
            day=date(1998, 4, 20),
            version=2,
            published=True,
            rows_in=107,
            rows_published=100,
            rows_quarantined=4,
            rows_duplicate=3,
            rows_total=99344,
            failed_checks=[],
            broken_rules="{}",
            fingerprint="f1n9",
            published_at=AT,
        ),
        Metric(
            metric_id="ratings@2/Mean/rating",
            table_name="ratings",
            version=2,
            metric="Mean",
            column="rating",
            value=3.526,
            measured_at=AT,
        ),
        DriftRow(
            drift_id="run-1/year",
            run_id="run-1",
            feature="year",
            psi=0.0158,
            jensen_shannon=0.05,
            test="chi-square",
            adjusted_p_value=0.02,
            threshold=0.2,
            drifted=False,
            reference_rows=25445,
            current_rows=3653,
            compared_at=AT,
        ),
        Cost(
            cost_id="local-1/train",
            execution="local-1",
            task="tasks.train.train",
            started_at=AT,
            seconds=14.8,
            cpu_seconds=20.0,
            peak_mib=2244.2,
        ),
        LlmCost(
            llm_cost_id="local-1/movie_card",
            execution="local-1",
            component="movie_card",
            model="Small",
            model_digest="d1",
            asked=1661,
            reused=21,
            failed=0,
            tokens_in=461336,
            tokens_out=22777,
            start_seconds=20.0,
            generate_seconds=258.7,
            watt_hours=3.25,
            money=0.007,
            currency="EUR",
            price_table="p",
            asked_at=AT,
        ),
        Deployment(
            deployment_id="1998-04-21T00:00/switch/blue",
            act="switch",
            slot="blue",
            model_version=1,
            model_digest=DIGEST,
            features=["users@2"],
            replaced=None,
            reason="asked for",
            inputs="{}",
            acted_at=AT,
        ),
    ]


@pytest.fixture
def recorded(lake: Lakehouse) -> Lakehouse:
    """A lake with a made-up ledger: one run, and a row of each table that a card cites."""
    for row in (run(), promotion(), *rest()):
        lake.ledger.append([row])
    return lake


@pytest.mark.parametrize("make", [model_card, technical_file])
def test_every_value_is_the_one_in_the_row_that_is_named(recorded: Lakehouse, make: Make) -> None:
    document = make(recorded, "champion")
    assert check(document, recorded.ledger) == document
    tables = {fact.source.table for fact in document.facts() if fact.source}
    assert tables >= {"runs", "promotions", "publications", "decisions", "drift", "costs", "llm_costs", "deployments"}
    said = {str(fact.source): fact.value for fact in document.facts()}
    assert said["runs[run-1].metrics/challenger NDCG@10"] == 0.2617
    assert said["publications[ratings/1998-04-20@2].rows_quarantined"] == 4
    assert said["decisions[run-1/fair by gender].inputs/NDCG@10 of 25-39"] == 0.21
    assert ("metrics[ratings@2/Mean/rating].value" in said) == (make is technical_file)


@pytest.mark.parametrize("make", [model_card, technical_file])
def test_every_number_that_a_reader_sees_is_a_facts(recorded: Lakehouse, make: Make) -> None:
    """Take away the facts' own texts, and no digit is left on the page."""
    document = make(recorded, "champion")
    bare = document.model_copy(
        update={"sections": tuple(section.model_copy(update={"facts": ()}) for section in document.sections)}
    )
    assert not re.search(r"\d", as_text(bare))
    body = re.sub(r"(?s)^.*?<body>", "", as_html(bare))
    assert not re.search(r"\d", re.sub(r"<[^>]*>|&#\d+;", "", body))


def test_a_technical_file_has_the_nine_parts_of_annex_iv(recorded: Lakehouse) -> None:
    headings = [section.heading for section in technical_file(recorded, "1").sections]
    numerals = dict.fromkeys(heading.partition(".")[0] for heading in headings if "." in heading)
    assert list(numerals) == ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]


def test_the_same_ledger_gives_the_same_bytes_in_each_format(recorded: Lakehouse) -> None:
    first, again = model_card(recorded, "champion"), model_card(recorded, "1")
    for write in (as_text, as_html, as_json):
        assert write(first) == write(again)
    assert Document.model_validate_json(as_json(first)) == first
    html = as_html(first)
    assert "<script" not in html and "http" not in html.replace('http-equiv="Content', "")
    assert "decisions[run-1/fair by gender].passed" in unescape(html)


def altered(document: Document, number: int, **changes: object) -> Document:
    """The document with one of its facts changed."""
    fact = document.facts()[number]
    new = Fact.model_validate({**dict(fact), **changes})
    sections = tuple(
        section.model_copy(update={"facts": tuple(new if one is fact else one for one in section.facts)})
        for section in document.sections
    )
    return document.model_copy(update={"sections": sections})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_value_without_its_source_row_is_refused_wherever_it_stands(recorded: Lakehouse, data: st.DataObject) -> None:
    document = data.draw(st.sampled_from([model_card, technical_file]))(recorded, "champion")
    number = data.draw(st.integers(0, len(document.facts()) - 1))
    source = document.facts()[number].source
    assert source is not None
    wrong = data.draw(
        st.sampled_from(
            [
                {"source": None},
                {"source": source.model_copy(update={"table": "opinions"})},
                {"source": source.model_copy(update={"key": f"{source.key}?"})},
                {"source": source.model_copy(update={"field": f"{source.field}/nothing"})},
                {"source": source.model_copy(update={"field": "__class__"})},
                {"value": data.draw(st.floats(allow_nan=False).filter(lambda x: x != document.facts()[number].value))},
                {"label": f"{document.facts()[number].label} of 123456789"},
            ]
        )
    )
    with pytest.raises(UnsourcedError) as caught:
        check(altered(document, number, **wrong), recorded.ledger)
    assert caught.value.code == "MR-UNSOURCED"


@given(st.integers(0, 10**9), st.sampled_from(["{}", "about {} users"]))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_number_in_the_text_is_refused(lake: Lakehouse, number: int, text: str) -> None:
    for section in (Section(heading=text.format(number)), Section(heading="It", text=(text.format(number),))):
        with pytest.raises(UnsourcedError):
            check(Document(kind="model card", title="It", sections=(section,)), lake.ledger)


def test_a_row_that_is_not_in_the_ledger_can_not_be_cited(lake: Lakehouse) -> None:
    document = Document(
        kind="model card", title="It", sections=(Section(heading="It", facts=(cite(run(), "seconds"),)),)
    )
    with pytest.raises(UnsourcedError, match=r"runs\[run-1\]\.seconds"):
        check(document, lake.ledger)
    lake.ledger.append([run()])
    assert check(document, lake.ledger) is document
    assert document.facts()[0].source == Source(table="runs", key="run-1", field="seconds")


def test_the_champion_is_the_newest_promotion_and_a_number_names_its_own(recorded: Lakehouse) -> None:
    recorded.ledger.append([promotion(2, "cd" * 32)])
    recorded.ledger.append([run(2, "cd" * 32, 0.3)])
    for reference, digest in (("champion", "cd" * 32), ("2", "cd" * 32), ("1", DIGEST)):
        facts = model_card(recorded, reference).facts()
        assert facts[0].value == digest


def test_no_champion_and_no_run_are_said_so(lake: Lakehouse) -> None:
    with pytest.raises(RegistryError, match="no version 'champion'"):
        model_card(lake)
    lake.ledger.append([promotion()])
    with pytest.raises(UnsourcedError, match="No run in the ledger made model version 1"):
        model_card(lake)


def test_a_version_that_the_gates_refused_has_a_card_too(lake: Lakehouse) -> None:
    with quiet_mlflow():
        client = MlflowClient(tracking_uri=tracking_uri())
        client.create_registered_model(REGISTERED_MODEL)
        client.create_model_version(REGISTERED_MODEL, source="models/x", tags={"model_digest": "ee" * 32})
    lake.ledger.append([run(1, "ee" * 32)])
    document = model_card(lake, "1")
    assert "never became champion" in as_text(document)
    assert document.facts()[0].value == "ee" * 32
    with pytest.raises(RegistryError):
        model_card(lake, "2")


def test_what_a_person_said_is_recorded_and_shown(recorded: Lakehouse) -> None:
    call = CliRunner().invoke
    assert "Nobody has approved or refused" in call(main, ["card"]).output
    done = call(main, ["approve", "champion", "--by", "A. Reader", "--note", "as long as it is a demo"])
    assert done.exit_code == 0 and "A. Reader approves model version 1" in done.output
    assert call(main, ["approve", "1", "--by", "B. Reader", "--refuse"]).exit_code == 0
    rows = list(recorded.ledger.read(Approval))
    assert [(row.by, row.approved, row.model_digest) for row in rows] == [
        ("A. Reader", True, DIGEST),
        ("B. Reader", False, DIGEST),
    ]
    for words in (["card"], ["card", "--technical-file"], ["card", "1", "--format", "html"]):
        done = call(main, words)
        assert done.exit_code == 0 and "as long as it is a demo" in done.output and "B. Reader" in done.output


def test_an_approval_of_a_version_that_is_not_there_writes_nothing(recorded: Lakehouse) -> None:
    done = CliRunner().invoke(main, ["approve", "7", "--by", "A. Reader"])
    assert done.exit_code == 1 and "MR-REGISTRY" in done.output
    assert list(recorded.ledger.read(Approval)) == []
