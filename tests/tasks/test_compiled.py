from __future__ import annotations

import pytest
from flytekit import conditional

from lakehouse import Snapshot
from lakehouse.errors import WrongTableError
from lakehouse.tables import Movie, Rating, User
from tasks.compiled import workflow
from tasks.typed import task


@task(cached=False)
def take_ratings(ratings: Snapshot[Rating]) -> int:
    return ratings.version


@task(cached=False)
def give_movies() -> Snapshot[Movie]:
    return Snapshot("/nowhere/movies", 1, Movie)


@task(cached=False)
def give_ratings() -> Snapshot[Rating]:
    return Snapshot("/nowhere/ratings", 1, Rating)


@task(cached=False)
def ask() -> bool:
    return True


@workflow
def inner(ratings: Snapshot[Rating]) -> int:
    """Take ratings."""
    return take_ratings(ratings=ratings)


def compile_it(declared: object) -> None:
    declared.compile()  # type: ignore[attr-defined]


def test_a_snapshot_of_the_right_table_compiles() -> None:
    @workflow
    def good(ratings: Snapshot[Rating]) -> int:
        take_ratings(ratings=give_ratings())
        return inner(ratings=ratings)

    compile_it(good)


def test_a_tasks_output_of_another_table_is_refused_when_compiled() -> None:
    @workflow
    def bad() -> int:
        return take_ratings(ratings=give_movies())  # type: ignore[arg-type]

    with pytest.raises(
        WrongTableError, match=r"Input 'ratings' of .*take_ratings in workflow .*bad takes .*'ratings'.*'movies'"
    ):
        compile_it(bad)


def test_a_workflow_input_of_another_table_is_refused_when_compiled() -> None:
    @workflow
    def bad(users: Snapshot[User]) -> int:
        return take_ratings(ratings=users)  # type: ignore[arg-type]

    with pytest.raises(WrongTableError, match="'users'"):
        compile_it(bad)


def test_a_sub_workflows_input_of_another_table_is_refused_when_compiled() -> None:
    @workflow
    def bad(users: Snapshot[User]) -> int:
        return inner(ratings=users)  # type: ignore[arg-type]

    with pytest.raises(WrongTableError, match="inner"):
        compile_it(bad)


@pytest.mark.parametrize("bad_branch", [0, 1, 2])
def test_a_wrong_snapshot_in_any_branch_of_a_condition_is_refused_when_compiled(bad_branch: int) -> None:
    @workflow
    def bad(first: bool, second: bool) -> int:
        given = [give_movies() if place == bad_branch else give_ratings() for place in range(3)]
        return (  # type: ignore[no-any-return]
            conditional("which")
            .if_(first.is_true())  # type: ignore[attr-defined]
            .then(take_ratings(ratings=given[0]))  # type: ignore[arg-type]
            .elif_(second.is_true())  # type: ignore[attr-defined]
            .then(take_ratings(ratings=given[1]))  # type: ignore[arg-type]
            .else_()
            .then(take_ratings(ratings=given[2]))  # type: ignore[arg-type]
        )

    with pytest.raises(WrongTableError, match="'movies'"):
        compile_it(bad)


def test_a_snapshot_of_any_table_may_be_passed_where_none_is_named() -> None:
    @task(cached=False)
    def take_any(table: Snapshot) -> int:  # type: ignore[type-arg]
        return table.version

    @workflow
    def good(users: Snapshot[User]) -> int:
        return take_any(table=users)

    compile_it(good)


@task(cached=False)
def add(left: int, right: int = 0) -> int:
    return left + right


@workflow
def chosen(number: int) -> int:
    """A condition, and something after it."""
    answer = ask()
    found = conditional("inner").if_(answer.is_true()).then(add(left=number)).else_().then(add(left=0))
    return add(left=found, right=100)


@workflow
def launch(number: int) -> int:
    """A branch whose workflow has a condition of its own, and something after it."""
    return add(left=chosen(number=number), right=1000)


@workflow
def outer(number: int) -> int:
    """Launch, or not."""
    return conditional("outer").if_(number > 1).then(launch(number=number)).else_().then(add(left=number))


def test_what_comes_after_a_condition_within_a_branch_is_done() -> None:
    assert (outer(number=2), outer(number=1)) == (1102, 1)
