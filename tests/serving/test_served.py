"""What the service answered with is kept as a sample, compared with the lake, and a difference fires its rule."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from features.store import FeatureStore, end_of
from lakehouse import Lakehouse
from lakehouse.ledger import Decision
from serving.health import lake_health
from serving.monitor import findings
from serving.parity import GATE, compare_served
from serving.schemas import RecommendRequest
from serving.served import read_served
from serving.turning import TurningLog, lines_of
from tests.serving.conftest import DAY, Night, Serve

AT = datetime(1998, 4, 21, 6, tzinfo=UTC)


def fired(lake: Lakehouse) -> list[str]:
    return [
        one.value for one in findings(lake_health(lake, AT + timedelta(hours=1))) if one.rule == "parity" and one.fired
    ]


def test_what_was_served_agrees_with_the_lake(serve: Serve, night: Night, own_lake: Lakehouse, tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert compare_served(own_lake, state, AT).compared == 0  # nothing was served, and nothing is written down
    assert not list(own_lake.ledger.read(Decision))
    with serve(served_share=1.0) as running:
        for user in (*night.users[:5], 10**9):  # of the last the store knows nothing, and that is compared too
            running.client.recommend(RecommendRequest(user_id=user))
        views = {
            view
            for view, _, _ in (
                name.partition("__") for name in running.service.deployments.route.active.features.user_columns
            )
        }
        log = read_served(state / "serving")  # while the service runs
    assert set(log["view"].to_pylist()) == views and log.num_rows == 6 * len(views)
    found = compare_served(own_lake, state, AT)
    assert found.compared >= log.num_rows and (found.different, found.unknown) == (0, 0)
    (decision,) = own_lake.ledger.read(Decision)
    assert (decision.gate, decision.passed, decision.decided_at) == (GATE, True, AT)
    assert lake_health(own_lake, AT).served_compared == found.compared
    assert lake_health(own_lake, AT - timedelta(hours=1)).served_compared is None
    assert fired(own_lake) == []


def test_a_value_that_only_the_online_store_has_fires_the_rule(
    serve: Serve, night: Night, own_lake: Lakehouse, tmp_path: Path
) -> None:
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    state, user = tmp_path / "state", night.users[3]
    (state / "features").unlink()
    shutil.copytree(night.folder / "features", state / "features")
    store = FeatureStore.open(state)
    view = store._feast.get_feature_view("user_stats")
    key = EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user)])
    store._provider.online_write_batch(
        store._feast.config, view, [(key, {"mean_rating": Value(double_val=9.5)}, end_of(DAY), None)], None
    )
    with serve(served_share=1.0, store=store) as running:
        running.client.recommend(RecommendRequest(user_id=night.users[0]))
        running.client.recommend(RecommendRequest(user_id=user))
    found = compare_served(own_lake, state, AT)
    assert found.different == 1
    assert found.examples[0].startswith(f"user_id {user}: mean_rating is 9.5 as served but ")
    (decision,) = own_lake.ledger.read(Decision)
    assert not decision.passed and found.examples[0] in decision.reason
    assert fired(own_lake) == [f"1 of {found.compared}"]


def test_a_share_of_nothing_keeps_nothing(serve: Serve, night: Night, tmp_path: Path) -> None:
    with serve(served_share=0.0) as running:
        running.client.recommend(RecommendRequest(user_id=night.users[0]))
    assert read_served(tmp_path / "state" / "serving").num_rows == 0


def test_a_log_keeps_the_newest_lines_and_is_bounded(tmp_path: Path) -> None:
    log = TurningLog(tmp_path / "one.log", file_bytes=100)
    for number in range(200):
        log.add(b"%03d" % number)
    log.flush()
    kept = [int(line) for line in lines_of(tmp_path / "one.log")]
    assert kept == list(range(kept[0], 200)) and 25 <= len(kept) <= 50
    log.close()
    again = TurningLog(tmp_path / "one.log", file_bytes=100)
    again.add(b"200")
    again.close()
    assert [int(line) for line in lines_of(tmp_path / "one.log")][-2:] == [199, 200]


def test_a_line_that_was_cut_short_is_left_out(serve: Serve, night: Night, tmp_path: Path) -> None:
    folder = tmp_path / "state" / "serving"
    with serve(served_share=1.0) as running:
        running.client.recommend(RecommendRequest(user_id=night.users[0]))
    whole = read_served(folder)
    path = folder / "served.log"
    path.write_bytes(path.read_bytes()[:-20])
    assert read_served(folder).num_rows == whole.num_rows - 1 >= 1
