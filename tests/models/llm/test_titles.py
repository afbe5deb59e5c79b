"""A text names a movie or it does not: prose about a heat wave names none."""

from __future__ import annotations

import pytest

from models.llm.titles import Catalogue, spoken

CATALOGUE = Catalogue(
    ["Heat", "Star Wars", "Lion King, The", "It Takes Two", "Contact", "Babe", "Seven (Se7en)", "187", "M", "Big Night"]
)


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("Lion King, The", "The Lion King"),
        ("Postino, Il", "Il Postino"),
        ("Avventura, L'", "L'Avventura"),
        ("Good, The Bad and The Ugly, The", "The Good, The Bad and The Ugly"),
        ("Big Blue, The (Grand bleu, Le)", "The Big Blue (Grand bleu, Le)"),
        ("Heat", "Heat"),
        ("", ""),
    ],
)
def test_a_title_is_said_with_its_article_in_front(title: str, said: str) -> None:
    assert spoken(title) == said
    assert spoken(said) == said


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("It has the sweep of star wars.", ["Star Wars"]),
        ("Like The Lion King, it is warm.", ["The Lion King"]),
        ("like the lion king", ["The Lion King"]),
        ("A policeman as patient as in Heat.", ["Heat"]),
        ("A film about the heat of summer and contact with strangers.", []),
        ("Contact with strangers scares him.", []),
        ('They say "Contact" is good.', ["Contact"]),
        ("it takes two to make a family", []),
        ("As funny as It Takes Two.", ["It Takes Two"]),
        ("A star of the wars.", []),
        ("Se7en and Seven are as dark as Babe is light.", ["Seven", "Babe"]),
        ("", []),
    ],
)
def test_titles_are_found_where_they_are_meant(text: str, named: list[str]) -> None:
    assert CATALOGUE.named_in(text) == named


def test_exceptions_may_be_named_and_do_not_join_their_neighbours() -> None:
    text = "Because you liked Heat and The Lion King, this star of wars."
    assert CATALOGUE.named_in(text, except_for=["Heat", "Lion King, The"]) == []
    assert CATALOGUE.named_in("star Heat wars", except_for=["Heat"]) == []
    assert CATALOGUE.named_in("Because you liked Big, Night falls.", except_for=["Big"]) == []
