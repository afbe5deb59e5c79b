"""What is the recommender for, and what not? Written down once, in intended_use.txt, and shown where it is served."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

#: The headings of the file, in order, as the fields below.
HEADINGS = {
    "intended": "Intended use",
    "out_of_scope": "Out of scope",
    "limits": "Known limits",
    "oversight": "Oversight",
}


class IntendedUse(BaseModel):
    """What whoever serves the recommender must know; each a list of sentences.

    Attributes:
        intended: what it is for.
        out_of_scope: what it must not be used for.
        limits: what is known to be weak.
        oversight: what people do, and can do.
    """

    model_config = ConfigDict(frozen=True)

    intended: tuple[str, ...]
    out_of_scope: tuple[str, ...]
    limits: tuple[str, ...]
    oversight: tuple[str, ...]

    def parts(self) -> list[tuple[str, tuple[str, ...]]]:
        """(heading, sentences) in the file's order."""
        return [(heading, getattr(self, name)) for name, heading in HEADINGS.items()]

    def markdown(self) -> str:
        """The whole text, for a page or an OpenAPI document."""
        return "\n\n".join(
            f"**{heading}**\n\n" + "\n".join(f"- {sentence}" for sentence in sentences)
            for heading, sentences in self.parts()
        )


@lru_cache(maxsize=1)
def intended_use() -> IntendedUse:
    """The text as it stands in the file. A file with another form is a fault of the checkout and fails loudly."""
    text = Path(__file__).with_name("intended_use.txt").read_text(encoding="utf-8")
    heading = ""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("- "):
            found[heading].append(line.removeprefix("- ").strip())
        elif line.strip():
            heading = line.strip()
            found[heading] = []
    assert list(found) == list(HEADINGS.values()), f"intended_use.txt has the headings {list(found)}"
    return IntendedUse.model_validate({name: found[heading] for name, heading in HEADINGS.items()})
