"""Which lake does a run work in? The one step that asks the world, in milliseconds; its answer is in every key."""

from __future__ import annotations

import flytekit
from pydantic import BaseModel, ConfigDict

from lakehouse.lake import Lakehouse


class Lake(BaseModel):
    """A lake by place and id: a new lake at an old place shares no cached answer with it."""

    model_config = ConfigDict(frozen=True)

    root: str
    id: str

    def open(self) -> Lakehouse:
        """The lake itself."""
        return Lakehouse.open(self.root)


@flytekit.task  # type: ignore[untyped-decorator]  # flytekit publishes no types
def open_lake() -> Lake:
    """Open the lake that the settings name, or make an empty one. Never cached."""
    lake = Lakehouse.open(create=True)
    return Lake(root=lake.root, id=lake.id)
