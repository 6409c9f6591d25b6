"""The object store: whether each thing that the farm does with it is allowed and works."""

import secrets
from collections.abc import Callable, Iterator

from farm.doctor.findings import Finding, error, first_line, ok
from farm.errors import FarmError, ObjectCorruptError
from farm.settings import Settings
from farm.storage import open_store

CHECK = "store"
FORBIDDEN = ("403", "AccessDenied", "AllAccessDisabled")
STRANGERS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "AuthFailure")
MISSING = ("404", "NoSuchBucket")


def check_store(settings: Settings) -> Iterator[Finding]:
    """Writes, reads and removes a small object below ``doctor/``; of S3 each missing permission is named."""
    where = settings.effective_store_url
    try:
        store = open_store(settings)
    except (FarmError, ValueError) as refused:
        yield error(CHECK, first_line(refused), "Correct FARM_STORE_URL and FARM_S3_ENDPOINT_URL.")
        return
    key, data = f"doctor/{secrets.token_hex(8)}", secrets.token_bytes(64)

    def read() -> None:
        if store.get(key) != data:
            raise ObjectCorruptError(f"{key} came back with other bytes than were written")

    failed = _failure(store.check)
    if failed is not None and _code(failed) not in FORBIDDEN:
        yield _finding(where, "look into", "s3:ListBucket", failed)
        return
    wrote = _failure(lambda: store.put(key, data, "application/octet-stream"))
    # Of a bucket servers only say that it may not be looked into, whatever the reason; of an object they say why.
    if failed is not None and (wrote is None or _code(wrote) not in STRANGERS):
        yield _finding(where, "look into", "s3:ListBucket", failed)
    if wrote is not None:
        # What was not written can be neither read nor removed.
        yield _finding(where, "write to", "s3:PutObject", wrote)
        return
    later = (("read from", "s3:GetObject", read), ("delete from", "s3:DeleteObject", lambda: store.delete_many([key])))
    failures = [
        _finding(where, verb, permission, why) for verb, permission, act in later if (why := _failure(act)) is not None
    ]
    yield from failures
    if failed is None and not failures:
        yield ok(CHECK, f"{where}: an object was written, read and removed")


def _failure(act: Callable[[], object]) -> FarmError | None:
    try:
        act()
    except FarmError as failed:
        return failed
    return None


def _finding(where: str, verb: str, permission: str, failed: FarmError) -> Finding:
    """What the failure of one kind of request means."""
    code = _code(failed)
    if where.startswith("file:"):
        return error(
            CHECK,
            first_line(failed),
            "Let FARM_STORE_URL (or FARM_DATA, where that is unset) name a directory that this user may write to.",
        )
    if code in FORBIDDEN:
        return error(
            CHECK,
            f"these credentials may not {verb} {where}: {permission} is missing",
            f"Grant {permission} to them, or give others (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY).",
        )
    if code in STRANGERS:
        return error(
            CHECK,
            f"the S3 server does not know these credentials ({code})",
            "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or the profile that boto3 reads).",
        )
    if code in MISSING:
        return error(
            CHECK,
            f"there is no bucket as {where} names it",
            "Make it (farm migrate does, where it is allowed to), or correct FARM_STORE_URL.",
        )
    return error(
        CHECK,
        f"{where}: {first_line(failed)}",
        "Correct FARM_STORE_URL, FARM_S3_ENDPOINT_URL and the AWS credentials, or start the S3 server.",
    )


def _code(failed: FarmError) -> str:
    """The server's own code; of several objects, of the first (which is in the message alone)."""
    response = getattr(failed.__cause__, "response", {})
    code = str(response.get("Error", {}).get("Code", ""))
    return "AccessDenied" if not code and "Access Denied" in str(failed) else code
