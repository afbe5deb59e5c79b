"""The training under torch elastic, as kfpytorch's `Elastic` runs it: two gloo processes, and the same digest as alone.

The recommender trains in seconds on one core and is not split: each process trains the whole, which shows that neither
the launcher nor a process group changes a bit of it. Rank 0's model is the one that is kept.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import flytekit
import numpy as np
import pyarrow as pa
from flytekitplugins.kfpytorch import Elastic

from models.recommender import RecommenderConfig, fit


def train_whole(folder: str) -> str:
    """Train on rows that are always the same, and save; the digest."""
    rng = np.random.default_rng(3)
    users, items = rng.integers(1, 21, 400), rng.integers(1, 31, 400)
    ends = datetime(1998, 4, 7, tzinfo=UTC)
    times = [ends - timedelta(hours=int(hours)) for hours in rng.integers(1, 24 * 60, 400)]
    rows = pa.table({"user_id": users, "item_id": items, "rated_at": pa.array(times, pa.timestamp("us", "UTC"))})
    return fit(rows, rows, config=RecommenderConfig(epochs=2)).save(Path(folder))


@flytekit.task(task_config=Elastic(nnodes=1, nproc_per_node=2, start_method="spawn"))
def train_elastic(folder: str) -> str:
    import torch

    torch.distributed.init_process_group("gloo")
    try:
        rank = torch.distributed.get_rank()
        digest = train_whole(f"{folder}/{rank}")
        digests: list[str | None] = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(digests, digest)
        assert digests == [digest, digest], digests
    finally:
        torch.distributed.destroy_process_group()
    return digest


def test_two_processes_under_torch_elastic_make_the_model_that_one_makes(tmp_path: Path) -> None:
    expected = train_whole(str(tmp_path / "alone"))
    assert train_elastic(folder=str(tmp_path / "elastic")) == expected
    assert sorted(path.name for path in (tmp_path / "elastic").iterdir()) == ["0", "1"]
