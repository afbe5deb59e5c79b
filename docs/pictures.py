"""Where do the pictures in the documents come from? From a real run: the newest one in the lake, drawn by a browser.

    python docs/pictures.py [FOLDER]     # default: docs/images; `make pictures`

Chromium is the distribution's own; CHROMIUM names another. The report is found by the ledger, so the picture is of the
night that `millrace runs` shows first.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from lakehouse import Lakehouse
from lakehouse.ledger import Run
from tasks.card import as_html, model_card

#: Width and height of each picture, in pixels.
SIZE = (1200, 900)


def main(folder: Path) -> None:
    """Draw the top of the newest report, and of the champion's model card."""
    lake = Lakehouse.open()
    run = list(lake.ledger.read(Run))[-1]
    draw(Path(run.report), folder / "report.png")
    with tempfile.TemporaryDirectory() as scratch:
        page = Path(scratch) / "card.html"
        page.write_text(as_html(model_card(lake)), encoding="utf-8")
        draw(page, folder / "card.png")


def draw(page: Path, picture: Path) -> None:
    """A picture of the top of a page."""
    subprocess.run(
        [
            os.environ.get("CHROMIUM", "/usr/bin/chromium"),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            f"--window-size={SIZE[0]},{SIZE[1]}",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    print(picture)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("images"))
