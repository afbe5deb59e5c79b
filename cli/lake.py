"""Which lake does a verb work on? The one that ``--lake`` or the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lakehouse.lake import Lakehouse


def open_lake() -> Lakehouse:
    """The lake of the command that is running, with the project's row models known."""
    import lakehouse.tables  # noqa: F401  (declares them)
    from lakehouse.lake import Lakehouse

    return Lakehouse.open(click.get_current_context().find_root().params["lake"])
