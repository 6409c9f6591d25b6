"""The one way in for jobs: in the name of who asks, within the limits of the token that was shown, once per key."""

from collections.abc import Callable, Mapping
from typing import Any

from flask import request

from dashboard.auth import identity, may
from dashboard.context import context
from dashboard.rates import note_limit
from farm.errors import InvalidSubmissionError, Problem
from farm.limits import Limits
from farm.roles import Role
from producer.intake import Intake
from producer.quotas import Quotas, usage
from producer.submit import Once, Receipt, submit_job

DAY_SECONDS = 86_400
MAX_KEY_CHARACTERS = 255


def submit(fields: Mapping[str, Any], intake: Intake, digest: Callable[[], str] | None = None) -> Receipt:
    """Accept a job of whoever asks; raises InvalidSubmissionError, and then nothing was written.

    ``digest`` is the hash of all that was sent: with it, the request's ``Idempotency-Key`` makes repetitions harmless
    (ConflictError for another submission under the same key). QuotaExceededError says what the token may not do now.
    """
    farm, who = context(), identity()
    quotas = _quotas()
    key = _idempotency_key()
    once = None if key is None or digest is None else Once(key, digest)
    receipt = submit_job(
        farm.engine, farm.catalog, farm.settings.pipeline, fields, intake, who.name, quotas=quotas, once=once
    )
    if quotas is not None:
        _note_quotas(quotas)
    return receipt


def token_limits() -> Limits | None:
    """The limits of the token that was shown; None if none was."""
    token = identity().token
    return None if token is None else token.limits | context().settings.token_limits


def refuse_beyond_default(limits: Limits) -> None:
    """Raise InvalidSubmissionError for limits of a new token beyond the settings', unless an administrator asks."""
    default = context().settings.token_limits
    name = limits.exceeding(default)
    if name is not None and not may(Role.ADMIN):
        most = getattr(default, name)
        raise InvalidSubmissionError([Problem(name, f"must be at most {most:,}; an administrator's may be more")])


def _quotas() -> Quotas | None:
    token, limits = identity().token, token_limits()
    if token is None or limits is None:
        return None
    return Quotas(token.id, limits.images_per_day, limits.concurrent_images, limits.largest_job)


def _note_quotas(quotas: Quotas) -> None:
    """Let the answer tell what is left."""
    if quotas.images_per_day is None and quotas.concurrent_images is None:
        return
    with context().engine.connect() as connection:
        used = usage(connection, quotas.token_id)
    if quotas.images_per_day is not None:
        left = max(0, quotas.images_per_day - used.today)
        note_limit("images-per-day", quotas.images_per_day, DAY_SECONDS, left, used.seconds_of_day)
    if quotas.concurrent_images is not None:
        left = max(0, quotas.concurrent_images - used.unfinished)
        note_limit("concurrent-images", quotas.concurrent_images, None, left, 0)


def _idempotency_key() -> str | None:
    """The request's key: as it is, or in quotes as the draft of the header has it. Raises InvalidSubmissionError."""
    given = request.headers.get("Idempotency-Key")
    if given is None:
        return None
    key = given.strip().removeprefix('"').removesuffix('"')
    if not 1 <= len(key) <= MAX_KEY_CHARACTERS or not key.isascii() or not key.isprintable():
        message = f"must have 1 to {MAX_KEY_CHARACTERS} printable ASCII characters, such as a UUID"
        raise InvalidSubmissionError([Problem("Idempotency-Key", message)])
    return key
