"""The report's curve of former champions and its reasons: in proportion, and said in words where there is none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree

import pytest

from tasks.report import NightReport, render
from tasks.report.model import (
    Contribution,
    ExplanationResult,
    FormerChampion,
    Score,
    StalenessResult,
    WorkedExample,
)
from tasks.report.plots import staleness_plot
from tasks.report.reasons import contribution_plot


def report(**parts: StalenessResult | ExplanationResult) -> NightReport:
    at = datetime(2026, 3, 2, 5, 0, tzinfo=UTC)
    night = {"day": date(1998, 4, 20), "run_id": "b41f7c0d92e3", "verdict": "kept", "reason": "Nothing was new."}
    return NightReport(**night, **parts, finished_at=at, seconds=0.4)


def staleness() -> StalenessResult:
    values = {0: 0.1412, 1: 0.1387, 7: 0.1344, 30: 0.1219}
    champions = tuple(
        FormerChampion(
            nights_ago=nights,
            name=f"version {31 - nights}",
            trained_until=date(1998, 4, 6) - timedelta(days=nights),
            scores=tuple(
                Score(
                    contender="", metric=metric, value=value * k, low=value * k - 0.01, high=value * k + 0.02, users=318
                )
                for metric, k in (("NDCG@10", 1.0), ("next item NDCG@10", 0.5))
            ),
        )
        for nights, value in values.items()
    )
    return StalenessResult(champions=champions, left_out=("version 2: its format is 1, not 2",))


def explanations(title: str = "Fargo (1996)") -> ExplanationResult:
    names = ["item_to_item", "transitions", "popularity_7d", *(f"column_{number:02d}" for number in range(12))]
    importances = tuple(
        Score(contender=name, metric="importance", value=1 / n, low=0.9 / n, high=1.1 / n, users=95)
        for n, name in enumerate(names, 1)
    )
    drops = {"named": 0.4127, "random": 0.0312, "difference": 0.3815}
    parts = {title: 0.8124, "popularity_7d": 0.3, "movies__genres": -0.2031}
    return ExplanationResult(
        model="challenger",
        importances=importances,
        faithful=tuple(
            Score(contender=name, metric="score lost", value=value, low=value - 0.1, high=value + 0.1, users=72)
            for name, value in drops.items()
        ),
        examples=(
            WorkedExample(
                user_id=405,
                title="Contact (1997)",
                margin=1.0093,
                contributions=tuple(Contribution(what=w, history=w == title, value=v) for w, v in parts.items()),
                rest=0.1,
            ),
        ),
    )


def test_the_curve_falls_where_the_scores_fall_and_nights_lie_in_proportion() -> None:
    circles = list(ElementTree.fromstring(staleness_plot(staleness(), "NDCG@10")).iter("circle"))
    across, down = ([float(circle.attrib[name]) for circle in circles] for name in ("cx", "cy"))
    assert down == sorted(down)
    assert (across[2] - across[0]) / (across[3] - across[0]) == pytest.approx(7 / 30, abs=0.01)


def test_what_lifts_and_what_holds_down_lie_on_two_sides_of_one_line() -> None:
    bars = {
        (title.text or "").partition(":")[0]: (float(rect.attrib["x"]), float(rect.attrib["width"]))
        for rect in ElementTree.fromstring(contribution_plot(explanations().examples[0])).iter("rect")
        if (title := rect.find("title")) is not None
    }
    (lift, wide), (down, narrow) = bars["Fargo (1996)"], bars["movies__genres"]
    assert down + narrow == pytest.approx(lift, abs=0.2)
    assert wide / narrow == pytest.approx(0.8124 / 0.2031, rel=0.01)


@pytest.mark.parametrize(
    ("champions", "words"),
    [
        (staleness().champions[:1], "There is one champion so far (version 31, trained until 1998-04-06)"),
        ((), "There is no champion that can be asked, so there is no curve."),
    ],
)
def test_without_two_champions_there_is_a_sentence_and_no_curve(
    champions: tuple[FormerChampion, ...], words: str
) -> None:
    page = render(report(staleness=StalenessResult(champions=champions)))
    assert words in page
    assert "nights since" not in page


def test_explanations_that_nobody_could_test_say_so() -> None:
    untested = explanations().model_copy(update={"faithful": ()})
    assert "were not put to the test" in render(report(explanations=untested))
