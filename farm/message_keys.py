"""Messages that only the farm can have written: signed with ``FARM_MESSAGE_KEY``.

A message says no more than which attempt of which batch is rung for, and that is what is signed. A copy of a message
therefore passes; it finds its batch already claimed.
"""

import hmac

from pydantic import SecretStr
from typing_extensions import TypeIs

#: The header of a message that holds its signature.
HEADER = "farm_signature"
MAX_NUMBER = 2**63 - 1
"""What a bigint of Postgres holds."""


def sign(key: SecretStr | None, task: str, batch_id: int, attempt: int) -> dict[str, str]:
    """The headers of a message to ``task``; none without a key."""
    return {} if key is None else {HEADER: _signature(key, task, batch_id, attempt)}


def read_message(
    key: SecretStr | None, task: str, arguments: tuple[object, ...], signature: object
) -> tuple[int, int] | None:
    """The batch and attempt that a message rings for; None if it is none of ours."""
    if len(arguments) != 2:
        return None
    batch_id, attempt = arguments
    if not (_is_number(batch_id) and _is_number(attempt)):
        return None
    if key is not None and not (
        isinstance(signature, str)
        and hmac.compare_digest(signature.encode(), _signature(key, task, batch_id, attempt).encode())
    ):
        return None
    return batch_id, attempt


def _signature(key: SecretStr, task: str, batch_id: int, attempt: int) -> str:
    message = f"{task} {batch_id} {attempt}".encode()
    return hmac.digest(key.get_secret_value().encode(), message, "sha256").hex()


def _is_number(value: object) -> TypeIs[int]:
    # True is an int of Python's, and no number of anything.
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NUMBER
