"""Lists take a fixed number of queries, however long they are."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, event

from farm import people
from farm.roles import Role


@contextmanager
def statements() -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/workers",
        "/jobs/1",
        "/account",
        "/people",
        "/activity",
        "/api/v1/jobs",
        "/api/v1/workers",
        "/api/v1/jobs/1/images",
        "/jobs/1/images/0",
        "/api/v1/tokens",
        "/api/v1/users",
        "/api/v1/activities",
    ],
)
def test_more_rows_take_no_more_queries(client: FlaskClient, farm, path: str) -> None:
    def add() -> None:
        job_id = farm.submit(4)
        farm.render(job_id, 1)
        farm.start(job_id, worker_id=f"w{job_id}")
        farm.add_worker(f"w{job_id}")
        people.add_user(farm.engine, f"user {job_id}", Role.VIEWER, by="tests")
        people.make_token(farm.engine, people.local_user(farm.engine).user_id, "another")

    def count() -> list[str]:
        with statements() as seen:
            assert client.get(path).status_code == 200
        return seen

    add()
    client.get(path)  # the first use of a token is recorded
    few = count()
    for _ in range(5):
        add()
    many = count()
    assert len(many) == len(few)
    assert not any("OFFSET" in statement.upper() for statement in many)
