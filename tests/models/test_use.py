"""What the recommender is for stands in one file, and wherever it is served."""

from __future__ import annotations

import re
from html import unescape

from models.use import HEADINGS, intended_use
from serving.page import page, policy


def test_each_part_has_sentences_without_a_number() -> None:
    use = intended_use()
    assert [heading for heading, _ in use.parts()] == list(HEADINGS.values())
    for _, sentences in use.parts():
        assert len(sentences) >= 2
        for sentence in sentences:
            assert sentence.endswith(".")
            assert not re.search(r"\d", sentence), "a number would need a source"


def test_the_page_shows_every_sentence_and_its_policy_still_fits() -> None:
    shown = unescape(page())
    for _, sentences in intended_use().parts():
        assert all(sentence in shown for sentence in sentences)
    assert policy().count("sha256-") == 2


def test_the_markdown_holds_every_sentence() -> None:
    text = intended_use().markdown()
    assert all(f"- {one}" in text for _, sentences in intended_use().parts() for one in sentences)
    assert text.startswith("**Intended use**\n\n- ")
