"""What does one see at /? One file with its own style and script, which loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import lru_cache
from html import escape
from pathlib import Path

from models.use import intended_use

#: Where the page wants the text of models/use/intended_use.txt.
_USE = "<!-- intended use -->"


@lru_cache(maxsize=1)
def page() -> str:
    """The page, with what the recommender is for and what not."""
    text = (Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8")
    use = "".join(
        f"<h2>{escape(heading)}</h2><ul>{''.join(f'<li>{escape(one)}</li>' for one in sentences)}</ul>"
        for heading, sentences in intended_use().parts()
    )
    assert _USE in text
    return text.replace(_USE, use)


@lru_cache(maxsize=1)
def policy() -> str:
    """What the browser lets the page do: run and style itself, as known by digest, and ask this service."""
    hashes = {
        tag: " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            for text in re.findall(rf"(?s)<{tag}>(.*?)</{tag}>", page())
        )
        for tag in ("script", "style")
    }
    return (
        f"default-src 'none'; script-src {hashes['script']}; style-src {hashes['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
