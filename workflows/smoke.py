"""The smoke test of a release: the first thing that runs where a version was registered.

    pyflyte -c flyte.yaml run workflows/smoke.py smoke

It takes seconds and changes nothing: image, credentials, lake and engines are there, or it fails.
"""

from __future__ import annotations

from tasks.compiled import workflow
from tasks.lake import open_lake
from tasks.look import Sight, look
from workflows.plan import plan


@workflow
def smoke() -> Sight:
    """Open the lake and read a row of every published table.

    Returns:
        Digests of code and lock, engines' versions, and the tables that were read.
    """
    return look(lake=open_lake())


#: Without a schedule: a release launches it.
smoke_test = plan(smoke, name="smoke_test", cron=None)
