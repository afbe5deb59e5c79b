"""A model card and a technical file out of the ledger: every value in them names the row that it comes from."""

from __future__ import annotations

from tasks.card.render import as_html, as_json, as_text
from tasks.card.write import model_card, technical_file

__all__ = ["as_html", "as_json", "as_text", "model_card", "technical_file"]
