"""How do templates become one page? A text that needs no script, no network and no second file."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.report import formats

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup


def environment(*folders: Path) -> Environment:
    """Templates of these folders and of the report's, with the formats as filters; every value is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("count", "decimal", "chance", "signed", "measure", "share", "seconds", "mebibytes", "plural"):
        made.filters[name] = getattr(formats, name)
    return made


def stylesheet(templates: Environment, *names: str) -> Markup:
    """Our own style files, one after the other; no value is in them."""
    from markupsafe import Markup

    return Markup("".join(templates.get_template(name).render() for name in names))  # noqa: S704


def whole_page(templates: Environment, title: str, css: Markup, body: Markup) -> str:
    """The page; its policy lets no style but this one in, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return templates.get_template("page.html.j2").render(title=title, css=css, css_hash=f"sha256-{digest}", body=body)
