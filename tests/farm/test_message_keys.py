"""Messages are read only if they are two numbers and, with a key, signed with it."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from pydantic import SecretStr, ValidationError

from farm.broker import TASK_NAMES, make_celery, queue_name, ring, waiting_batches
from farm.message_keys import HEADER, read_message, sign
from farm.priorities import INTERACTIVE_MESSAGE
from farm.settings import Settings
from farm.states import Stage

KEY, OTHER = SecretStr("k" * 32), SecretStr("o" * 32)
TASK = TASK_NAMES[Stage.BASE]
SIGNATURE = sign(KEY, TASK, 7, 1)[HEADER]


def test_what_was_signed_is_read() -> None:
    assert read_message(KEY, TASK, (7, 1), SIGNATURE) == (7, 1)


@pytest.mark.parametrize(
    ("key", "task", "arguments", "signature"),
    [
        (KEY, TASK, (7, 1), None),
        (KEY, TASK, (7, 1), ""),
        (KEY, TASK, (7, 1), 5),
        (KEY, TASK, (7, 1), "\N{SNOWMAN}"),
        (KEY, TASK, (8, 1), SIGNATURE),
        (KEY, TASK, (7, 2), SIGNATURE),
        (KEY, TASK_NAMES[Stage.REFINER], (7, 1), SIGNATURE),
        (OTHER, TASK, (7, 1), SIGNATURE),
    ],
)
def test_what_was_signed_for_something_else_is_not(key: SecretStr, task: str, arguments: Any, signature: Any) -> None:
    assert read_message(key, task, arguments, signature) is None


def test_without_a_key_nothing_is_signed() -> None:
    assert sign(None, TASK, 7, 1) == {}
    assert read_message(None, TASK, (7, 1), None) == (7, 1)


@pytest.mark.parametrize(
    "arguments", [(), (1,), (1, 2, 3), ("1", 1), (1.0, 1), (True, 1), (1, None), (-1, 1), (1, 2**63), ([1], 1)]
)
def test_anything_but_two_numbers_is_refused(arguments: tuple[Any, ...]) -> None:
    assert read_message(None, TASK, arguments, None) is None


def test_a_short_key_is_refused_and_not_told() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(message_key="too-short")
    assert "too-short" not in repr(Settings(message_key="long enough to be one"))
    assert "message_key" in str(refused.value)


@pytest.fixture
def signing(settings: Settings) -> Iterator[Celery]:
    app = make_celery(settings.model_copy(update={"message_key": KEY}))
    yield app
    app.close()


def test_messages_in_the_broker_are_signed_and_so_is_what_follows_them(signing: Celery) -> None:
    ring(signing, "signed", Stage.BASE, 7, 1, refined=True, priority=INTERACTIVE_MESSAGE)
    queue = queue_name("signed", Stage.BASE)
    assert waiting_batches(signing, queue, interactive=True) == {(7, 1)}
    with signing.connection_for_read() as connection:
        message = json.loads(connection.default_channel.client.lpop(queue))
    assert message["headers"][HEADER] == SIGNATURE
    _, _, embedded = json.loads(base64.b64decode(message["body"]))
    (following,) = embedded["chain"]
    assert following["options"]["headers"][HEADER] == sign(KEY, TASK_NAMES[Stage.REFINER], 7, 1)[HEADER]
