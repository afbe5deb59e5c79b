from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from deltalake import write_deltalake

from cli.main import VERBS, main
from lakehouse import Lakehouse
from lakehouse.ledger import Cost, Decision, Publication, Run

HEAVY = ("pyspark", "torch", "feast", "pandas", "flytekit", "vllm", "mlflow", "matplotlib")
EVIL = '{"title": "\x1b[31m[bold]red"}'
Millrace = Callable[..., Result]


@pytest.fixture
def lake(tmp_path: Path) -> Lakehouse:
    """Ratings with 300 and 302 rows at versions 0 and 1, one refused row, two runs."""
    lake = Lakehouse.open(tmp_path / "lake", create=True)
    known = datetime(1998, 3, 1, 22, tzinfo=UTC)
    for rows in (300, 2):
        table = pa.table(
            {
                "user_id": pa.array(range(rows), pa.int64()),
                "item_id": pa.array([7] * rows, pa.int64()),
                "rating": [4.0] * rows,
                "rated_at": pa.array([known] * rows, pa.timestamp("us", "UTC")),
            }
        )
        write_deltalake(lake.uri("ratings"), table, mode="append")
    refused = {
        "quarantine_id": ["1998-03-01/0"],
        "batch_id": ["1998-03-01"],
        "row_number": [0],
        "row": [EVIL],
        "rules": [["rating le 5", "item_id references movies.item_id"]],
        "day": [date(1998, 3, 1)],
        "quarantined_at": pa.array([known], pa.timestamp("us", "UTC")),
    }
    write_deltalake(lake.quarantine_uri("ratings"), pa.table(refused))
    lake.ledger.append([publication(0, 300), publication(1, 302)])
    lake.ledger.append([run("aa11", 1), run("aa22", 2)])
    decided = datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
    drift = {"gate": "drift", "passed": True, "inputs": '{"psi": 0.3}', "decided_at": decided}
    lake.ledger.append(
        [Decision(decision_id=f"{name}/drift", run_id=name, reason=f"why {name}", **drift) for name in ("aa11", "aa22")]
    )
    for minute in (1, 2):
        started = datetime(2026, 1, 1, 0, minute - 1, 55, tzinfo=UTC)
        usage = {"seconds": 3.0, "cpu_seconds": 2.0, "peak_mib": 100.0}
        name = {"cost_id": str(minute), "execution": f"e{minute}", "task": f"t{minute}"}
        lake.ledger.append([Cost(**name, started_at=started, **usage)])
    return lake


def publication(version: int, rows: int) -> Publication:
    return Publication(
        publication_id=f"ratings/{version}",
        table_name="ratings",
        batch_id=str(version),
        day=date(1998, 3, 1 + version),
        version=version,
        published=True,
        rows_in=rows,
        rows_published=rows,
        rows_quarantined=0,
        rows_duplicate=0,
        rows_total=rows,
        failed_checks=[],
        broken_rules='{"rating le 5": 1}',
        fingerprint="f",
        published_at=datetime(2026, 1, 1, 0, version, tzinfo=UTC),
    )


def run(run_id: str, minute: int) -> Run:
    return Run(
        run_id=run_id,
        execution=f"e{minute}",
        workflow="nightly",
        day=date(1998, 3, minute),
        parameters='{"day": "1998-03-01"}',
        seed=1,
        code_digest="c",
        commit="",
        lock_digest="l",
        inputs=["ratings@0"],
        outputs=["ratings@1"],
        artifacts='{"model": "abc"}',
        metrics='{"ndcg@10": 0.1234}',
        verdict="promoted: better",
        report="reports/index.html",
        seconds=10.0,
        finished_at=datetime(2026, 1, 1, 0, minute, tzinfo=UTC),
    )


@pytest.fixture
def millrace(lake: Lakehouse, monkeypatch: pytest.MonkeyPatch) -> Millrace:
    """Runs the command on the lake, in this process."""
    monkeypatch.setenv("LAKEHOUSE_ROOT", lake.root)
    monkeypatch.delenv("MILLRACE_DEBUG", raising=False)
    return lambda *arguments: CliRunner().invoke(main, list(arguments), prog_name="millrace")


def document(result: Result) -> object:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


LISTINGS = [
    (["tables"], "ratings"),
    (["history", "ratings"], "WRITE"),
    (["sql", "SELECT * FROM ratings LIMIT 2"], "1998-03-01T22:00:00Z"),
    (["quarantine", "list", "ratings"], "rating le 5"),
    (["runs"], "aa22"),
]


@pytest.mark.parametrize(("arguments", "word"), LISTINGS)
def test_every_listing_speaks_table_json_and_csv(millrace: Millrace, arguments: list[str], word: str) -> None:
    table, text, rows = (millrace(*arguments, "--format", name) for name in ("table", "json", "csv"))
    assert table.exit_code == 0 and word in table.stdout
    records = document(text)
    assert isinstance(records, list) and records
    parsed = list(csv.DictReader(io.StringIO(rows.stdout)))
    assert [list(record) for record in parsed] == [list(record) for record in records]
    assert text.stderr == rows.stderr == ""


def test_history_lists_the_newest_version_first_with_what_was_published(millrace: Millrace) -> None:
    versions = document(millrace("history", "ratings", "--format", "json"))
    assert [(v["version"], v["published"], v["rows"]) for v in versions] == [(1, True, 302), (0, True, 300)]


def test_sql_reads_the_version_it_names(millrace: Millrace) -> None:
    assert document(millrace("sql", "SELECT count(*) AS n FROM ratings@0", "--format", "json")) == [{"n": 300}]


def test_sql_values_become_plain_json(millrace: Millrace) -> None:
    statement = """SELECT 1.5 AS exact, 0.12345678901234567891 AS long, sum(1) AS total, NULL AS nothing, 'a'::BLOB AS
        raw, 'nan'::DOUBLE AS nan, true AS yes, DATE '1998-03-01' AS day, [1, 2] AS list, {'x': 1} AS struct,
        TIMESTAMP_NS '1998-03-01 00:00:00.123456789' AS fine, TIMESTAMPTZ '1998-03-01 02:00:00+02' AS moment"""
    assert document(millrace("sql", statement, "--format", "json")) == [
        {
            "exact": 1.5,
            "long": "0.12345678901234567891",
            "total": 1,
            "nothing": None,
            "raw": "61",
            "nan": "nan",
            "yes": True,
            "day": "1998-03-01",
            "list": [1, 2],
            "struct": {"x": 1},
            "fine": "1998-03-01T00:00:00.123456",
            "moment": "1998-03-01T00:00:00Z",
        }
    ]


def test_a_listing_without_rows_is_an_empty_json_array(millrace: Millrace) -> None:
    assert document(millrace("sql", "FROM ratings WHERE false", "--format", "json")) == []
    assert document(millrace("quarantine", "list", "movies", "--format", "json")) == []


def test_a_long_table_is_cut_and_says_so_but_csv_is_whole(millrace: Millrace) -> None:
    table = millrace("sql", "FROM ratings")
    assert "302 rows, 200 shown" in table.stderr
    assert len(millrace("sql", "FROM ratings", "--format", "csv").stdout.splitlines()) == 303


def test_sql_writes_parquet_with_types(millrace: Millrace, tmp_path: Path) -> None:
    file = tmp_path / "out.parquet"
    result = millrace("sql", "FROM ratings@0", "--format", "parquet", "--output", str(file))
    assert result.exit_code == 0
    assert pq.read_table(file).schema.field("rated_at").type == pa.timestamp("us", "UTC")


def test_parquet_without_a_file_is_wrong_usage(millrace: Millrace) -> None:
    assert millrace("sql", "SELECT 1", "--format", "parquet").exit_code == 2


def test_hostile_text_is_shown_and_neither_obeyed_nor_lost(millrace: Millrace) -> None:
    shown = millrace("quarantine", "list", "ratings").stdout
    assert "\x1b" not in shown and r"\x1b[31m[bold]red" in shown
    (record,) = document(millrace("sql", "SELECT row FROM quarantine.ratings", "--format", "json"))
    assert record["row"] == EVIL


def test_describe_tells_columns_types_and_rules(millrace: Millrace) -> None:
    text = millrace("describe", "ratings").stdout
    assert "| rating | float | required | ge 0.5, le 5 | Stars, from 0.5 to 5. |" in text
    assert "- `Mean(rating) ge 2.5 le 4.5`" in text
    described = document(millrace("describe", "ratings", "--format", "json"))
    assert described["columns"][0]["references"] == "users.user_id"


def test_describe_gives_the_json_schema_of_a_row(millrace: Millrace) -> None:
    schema = document(millrace("describe", "ratings", "--format", "json-schema"))
    assert (schema["title"], schema["properties"]["rating"]["maximum"]) == ("ratings", 5)
    refused = millrace("describe", "loose", "--format", "json-schema")
    assert (refused.exit_code, "MR-UNDECLARED" in refused.stderr) == (1, True)


def test_describe_needs_no_lake_for_a_declared_table(millrace: Millrace, tmp_path: Path) -> None:
    assert millrace("--lake", str(tmp_path / "none"), "describe", "movies").exit_code == 0


def test_describe_shows_what_is_stored_where_nothing_is_declared(millrace: Millrace, lake: Lakehouse) -> None:
    write_deltalake(lake.uri("loose_words"), pa.table({"word": ["a"]}), description="Loose | notes")
    described = document(millrace("describe", "loose_words", "--format", "json"))
    assert (described["declared"], described["columns"][0]["name"]) == (False, "word")


@pytest.mark.parametrize(("name", "run_id"), [("last", "aa22"), ("aa11", "aa11"), ("aa1", "aa11")])
def test_show_finds_a_run_by_id_by_its_start_or_as_last(millrace: Millrace, name: str, run_id: str) -> None:
    assert document(millrace("show", name, "--format", "json"))["run_id"] == run_id


def test_show_tells_all_that_the_ledger_knows_of_the_run(millrace: Millrace) -> None:
    shown = document(millrace("show", "last", "--format", "json"))
    assert shown["metrics"] == {"ndcg@10": 0.1234}
    assert [item["reason"] for item in shown["decisions"]] == ["why aa22"]
    assert [item["version"] for item in shown["publications"]] == [1]
    assert [item["task"] for item in shown["costs"]] == ["t2"]
    text = millrace("show", "last").stdout
    for word in ("ndcg@10", "0.1234", "why aa22", "reports/index.html", "promoted: better", "abc", "t2", "ratings@1"):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["history", "ratingz"], ["Did you mean 'ratings'?", "MR-TABLE-UNKNOWN"]),
        (["describe", "ratingz"], ["Did you mean 'ratings'?", "MR-TABLE-UNKNOWN"]),
        (["quarantine", "list", "ratingz"], ["Did you mean 'ratings'?", "MR-TABLE-UNKNOWN"]),
        (["sql", "FROM ratingz"], ["Did you mean 'ratings'?", "MR-TABLE-UNKNOWN"]),
        (["sql", "FROM ratings@9"], ["no version 9", "MR-VERSION-UNKNOWN"]),
        (["sql", "DROP VIEW ratings"], ["only reads", "MR-QUERY"]),
        (["sql", "FROM read_text('/etc/hostname')"], ["lake's tables only", "MR-QUERY"]),
        (["show", "zz"], ["starts with 'zz'", "MR-RUN-UNKNOWN"]),
        (["show", ""], ["MR-RUN-UNKNOWN"]),
        (["show", "aa"], ["2 runs", "aa11, aa22", "MR-RUN-AMBIGUOUS"]),
        (["--lake", "nowhere", "tables"], ["There is no lake at", "MR-STORAGE"]),
    ],
)
def test_a_mistake_is_explained_without_a_stack_trace(
    millrace: Millrace, arguments: list[str], words: list[str]
) -> None:
    result = millrace(*arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("error: ") and "\n  fix: " in result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


def test_a_lake_without_runs_says_so(millrace: Millrace, tmp_path: Path) -> None:
    Lakehouse.open(tmp_path / "new", create=True)
    assert "no run yet" in millrace("--lake", str(tmp_path / "new"), "show", "last").stderr
    assert document(millrace("--lake", str(tmp_path / "new"), "runs", "--format", "json")) == []


def test_a_verb_that_is_not_there_is_wrong_usage_with_the_nearest_one(millrace: Millrace) -> None:
    result = millrace("tabels")
    assert result.exit_code == 2 and "Did you mean 'tables'?" in result.stderr


def test_an_unexpected_error_is_one_line_and_debug_shows_the_trace(
    millrace: Millrace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> object:
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("lakehouse.query.sql.query", broken)
    result = millrace("sql", "SELECT 1")
    assert result.exit_code == 1 and "error: ZeroDivisionError: first\n" in result.stderr
    assert isinstance(millrace("--debug", "sql", "SELECT 1").exception, ZeroDivisionError)
    monkeypatch.setenv("MILLRACE_DEBUG", "1")
    assert isinstance(millrace("sql", "SELECT 1").exception, ZeroDivisionError)


def test_an_interrupt_ends_with_130(millrace: Millrace, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr("lakehouse.query.sql.query", interrupted)
    assert millrace("sql", "SELECT 1").exit_code == 130


def test_every_verb_has_a_help_text(millrace: Millrace) -> None:
    listed = millrace("--help").stdout
    for verb in VERBS:
        assert f"  {verb}" in listed
        assert millrace(verb, "--help").exit_code == 0


def command(*arguments: str, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-c", code] if code else ["-m", "cli.main"]
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, *start, *arguments], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(("arguments", "light"), [(["--help"], False), (["sql", "SELECT * FROM ratings@0"], True)])
def test_the_command_loads_no_heavy_library(lake: Lakehouse, arguments: list[str], light: bool) -> None:
    refused = HEAVY if light else (*HEAVY, "lakehouse", "duckdb", "deltalake", "pyarrow", "pydantic", "rich")
    code = f"""
import sys
from cli.main import main
try:
    main(sys.argv[1:])
finally:
    print([name for name in {refused!r} if name in sys.modules], file=sys.stderr)
"""
    result = command("--lake", lake.root, *arguments, code=code)
    assert (result.returncode, result.stderr.splitlines()[-1]) == (0, "[]")


def test_the_command_runs_as_a_process_and_prints_only_the_document(lake: Lakehouse) -> None:
    result = command("--lake", lake.root, "sql", "SELECT count(*) AS n FROM ratings@0", "--format", "json")
    assert (result.returncode, json.loads(result.stdout), result.stderr) == (0, [{"n": 300}], "")


def test_a_mistake_in_a_process_leaves_only_the_explanation(lake: Lakehouse) -> None:
    result = command("--lake", lake.root, "sql", "SELECT nope FROM ratings")
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 3)


def test_a_reader_that_stops_early_is_no_error(lake: Lakehouse) -> None:
    statement = "SELECT a.user_id FROM ratings a, ratings b"
    root = Path(__file__).parents[2]
    arguments = [sys.executable, "-m", "cli.main", "--lake", lake.root, "sql", statement, "--format", "csv"]
    with subprocess.Popen(arguments, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "user_id\n"
        process.stdout.close()
        assert process.stderr.read() == ""
