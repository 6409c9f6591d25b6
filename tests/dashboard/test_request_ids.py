"""Each answer tells the id of its request."""

import pytest
from flask.testing import FlaskClient


@pytest.mark.parametrize(("given", "expected"), [("abc-1", "abc-1"), ("a b", None), ("x" * 65, None)])
def test_a_request_is_answered_with_its_id(client: FlaskClient, given: str, expected: str | None) -> None:
    answer = client.get("/healthz", headers={"X-Request-ID": given})
    told = answer.headers["X-Request-ID"]
    assert told == expected if expected else told != given
