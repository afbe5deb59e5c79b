"""Which movies does a text name? Titles as people say them, and a catalogue that finds its titles in prose."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from itertools import pairwise

#: Words that alone make no title: "the end" in prose names no movie, "star wars" does.
# fmt: off
_SMALL = frozenset((
    "a", "an", "and", "as", "at", "be", "but", "by", "do", "for", "from", "go", "good", "he", "her", "his", "i",
    "if", "in", "is", "it", "life", "like", "love", "man", "me", "my", "new", "night", "no", "not", "of", "on",
    "one", "or", "our", "she", "so", "some", "that", "the", "their", "them", "they", "thing", "things", "this",
    "time", "to", "two", "up", "us", "was", "we", "what", "when", "who", "will", "with", "woman", "you", "your",
))
# fmt: on
_ARTICLE = re.compile(
    r"(.+), (The|A|An|Das|Der|Die|El|Il|L'|La|Las|Le|Les|Lo|Los|Un|Una|Une)( \(.*\))?$", re.IGNORECASE | re.DOTALL
)
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)*")


def spoken(title: str) -> str:
    """The title with its article in front: ``Lion King, The`` is ``The Lion King``; others stay as they are."""
    found = _ARTICLE.match(title)
    if found is None:
        return title
    article = found[2] if found[2].endswith("'") else f"{found[2]} "
    return f"{article}{found[1]}{found[3] or ''}"


class Catalogue:
    """Titles that a text may or may not name.

    A title of two or more telling words counts wherever the words follow each other, in any case. A title of one word,
    or of small words only ("Heat", "It Takes Two"), counts only where it is written as a title: each word begins with
    a capital as in the title, and it does not open a sentence, or it stands in quotation marks. So prose about a heat
    wave names no movie; a one-word title at the start of a sentence is missed.
    """

    def __init__(self, titles: Iterable[str]) -> None:
        self._titles: dict[tuple[str, ...], str] = {}
        for title in titles:
            for name in _forms(title):
                words = tuple(word.casefold() for word in _WORD.findall(name))
                if words and sum(map(len, words)) > 1:
                    self._titles.setdefault(words, name)
        self._longest = max(map(len, self._titles), default=0)

    def __len__(self) -> int:
        return len(self._titles)

    def named_in(self, text: str, *, except_for: Collection[str] = ()) -> list[str]:
        """The catalogue's titles that the text names, longest first at each place; the exceptions may be named."""
        for title in sorted({form for one in except_for for form in _forms(one)}, key=len, reverse=True):
            text = re.sub(rf"(?<!\w){re.escape(title)}(?!\w)", " \N{BULLET} ", text, flags=re.IGNORECASE)
        found: list[str] = []
        words = list(_WORD.finditer(text))
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                span = words[place : place + length]
                known = self._titles.get(tuple(word[0].casefold() for word in span))
                if known is not None and _adjoining(text, span) and _meant(known, text, span):
                    found.append(known)
                    place += length - 1
                    break
            place += 1
        return found


def _forms(title: str) -> list[str]:
    """The ways in which a title is written: article behind and in front, with and without what is in brackets."""
    bare = re.sub(r"\s*\([^)]*\)", "", title).strip()
    return [form for form in dict.fromkeys((title.strip(), spoken(title.strip()), bare, spoken(bare))) if form]


def _adjoining(text: str, span: list[re.Match[str]]) -> bool:
    """Whether nothing but spaces and a title's own marks stands between the words."""
    gaps = [text[before.end() : after.start()] for before, after in pairwise(span)]
    return all(len(gap) <= 3 and "\N{BULLET}" not in gap for gap in gaps)


def _meant(title: str, text: str, span: list[re.Match[str]]) -> bool:
    telling = [word for word in span if word[0].casefold() not in _SMALL and not word[0].isdigit()]
    if len(telling) >= 2:
        return True
    before = text[: span[0].start()].rstrip(" ")
    quoted = before[-1:] in ('"', "\u201c", "\u2018", "\u00ab")
    if quoted:
        return True
    opens = not before or before[-1] in ".!?:\n"
    return (
        not opens
        and all(
            written[0][0].isupper() or own[0].islower() or own[0].isdigit()
            for written, own in zip(span, _WORD.findall(title), strict=False)
        )
        and span[0][0][0].isupper()
    )
