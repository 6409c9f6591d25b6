"""The object store: an interface with two implementations, S3 and a directory.

Keys come from ``farm.keys`` alone; no name that a user gave ever becomes a key.
"""

import hashlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from typing_extensions import override

from farm.errors import ConfigurationError, ObjectCorruptError, ObjectMissingError, StoreError
from farm.settings import Settings

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of ``data``."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """What a listing tells of an object."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """With its time zone."""


class ObjectStore(Protocol):
    """What the farm asks of a store. ``put`` is atomic: a reader sees the old object, the new one or none.

    Every method raises StoreError when the store itself fails: that is nobody's batch's fault, and passes.
    """

    def put(self, key: str, data: bytes, content_type: str) -> None:
        """Write ``data`` under ``key``, replacing what was there."""

    def get(self, key: str) -> bytes:
        """The object's bytes; raises ObjectMissingError."""

    def has(self, key: str) -> bool:
        """Whether the object is there."""

    def delete(self, key: str) -> None:
        """Remove the object; nothing there is fine."""

    def delete_many(self, keys: Sequence[str]) -> None:
        """Remove up to 1,000 objects; those that are not there are fine."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin so (up to a slash); what comes or goes meanwhile may be among them."""

    def public_url(self, key: str, seconds: int, download_name: str | None = None) -> str | None:
        """A signed URL that a browser can fetch for so many seconds, or None if it must come through us."""

    def prepare(self) -> None:
        """Make the bucket or directory where it is missing; raises ConfigurationError."""

    def check(self) -> None:
        """Raise ConfigurationError unless the store is there and can be used."""


def get_verified(store: ObjectStore, key: str, expected_sha256: str) -> bytes:
    """The object's bytes, checked against their hash.

    The hash is our own because checksum headers are not checked by every S3 server.
    Raises ObjectMissingError or ObjectCorruptError.
    """
    data = store.get(key)
    if sha256(data) != expected_sha256:
        raise ObjectCorruptError(f"{key} holds {len(data)} bytes that are not those that were written.")
    return data


class DirectoryStore(ObjectStore):
    """Objects as files below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def _path(self, key: str) -> Path:
        path = self.root.joinpath(*key.split("/"))
        if ".." in path.parts or not path.is_relative_to(self.root):
            raise ValueError(f"not a key: {key!r}")
        return path

    @override
    def put(self, key: str, data: bytes, content_type: str) -> None:
        path = self._path(key)
        with _store_errors(key, OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                Path(temporary).replace(path)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise

    @override
    def get(self, key: str) -> bytes:
        try:
            with _store_errors(key, OSError):
                return self._path(key).read_bytes()
        except StoreError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise ObjectMissingError(f"The store holds no {key}.") from None
            raise

    @override
    def has(self, key: str) -> bool:
        with _store_errors(key, OSError):
            return self._path(key).is_file()

    @override
    def delete(self, key: str) -> None:
        with _store_errors(key, OSError):
            self._path(key).unlink(missing_ok=True)

    @override
    def delete_many(self, keys: Sequence[str]) -> None:
        for key in keys:
            self.delete(key)

    @override
    def list(self, prefix: str) -> Iterator[StoredObject]:
        for folder, _, names in os.walk(self._path(prefix.rstrip("/"))):
            for name in sorted(names):
                path = Path(folder, name)
                # What is being written begins with a dot.
                if name.startswith("."):
                    continue
                try:
                    with _store_errors(name, OSError):
                        status = path.stat()
                except StoreError as error:
                    if isinstance(error.__cause__, FileNotFoundError):
                        continue
                    raise
                key = path.relative_to(self.root).as_posix()
                yield StoredObject(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    @override
    def public_url(self, key: str, seconds: int, download_name: str | None = None) -> str | None:
        return None

    @override
    def prepare(self) -> None:
        self.check()

    @override
    def check(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise ConfigurationError(f"The objects directory {self.root} cannot be written: {error}") from error


class S3Store(ObjectStore):
    """Objects in a bucket of S3, or of a server that speaks its protocol."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        endpoint_url: str | None,
        public_endpoint_url: str | None,
        timeout_seconds: float = 60,
    ) -> None:
        """``timeout_seconds`` is how long an answer may be silent before it is asked for again."""
        from botocore.exceptions import BotoCoreError, ClientError

        self.bucket = bucket
        self._failures = (BotoCoreError, ClientError)
        self.prefix = prefix.strip("/") + "/" if prefix.strip("/") else ""
        self._client = _s3_client(endpoint_url, timeout_seconds)
        self._public_client = _s3_client(public_endpoint_url, timeout_seconds) if public_endpoint_url else None

    @override
    def put(self, key: str, data: bytes, content_type: str) -> None:
        with _store_errors(key, *self._failures):
            self._client.put_object(Bucket=self.bucket, Key=self.prefix + key, Body=data, ContentType=content_type)

    @override
    def get(self, key: str) -> bytes:
        try:
            with _store_errors(key, *self._failures):
                return self._client.get_object(Bucket=self.bucket, Key=self.prefix + key)["Body"].read()
        except StoreError as error:
            if isinstance(error.__cause__, self._client.exceptions.NoSuchKey):
                raise ObjectMissingError(f"The bucket {self.bucket} holds no {self.prefix}{key}.") from None
            raise

    @override
    def has(self, key: str) -> bool:
        # A listing: asked for an object alone, servers say of a missing one and of a missing bucket the same.
        return any(one.key == key for one in self.list(key))

    @override
    def delete(self, key: str) -> None:
        with _store_errors(key, *self._failures):
            self._client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    @override
    def delete_many(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        named = f"{keys[0]} and {len(keys) - 1} more"
        with _store_errors(named, *self._failures):
            answer = self._client.delete_objects(
                Bucket=self.bucket, Delete={"Objects": [{"Key": self.prefix + key} for key in keys], "Quiet": True}
            )
        if errors := answer.get("Errors"):
            raise StoreError(f"The store did not delete {errors[0].get('Key')}: {errors[0].get('Message')}")

    @override
    def list(self, prefix: str) -> Iterator[StoredObject]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
        with _store_errors(prefix, *self._failures):
            for page in pages:
                for one in page.get("Contents", []):
                    key = one["Key"].removeprefix(self.prefix)
                    yield StoredObject(key, one["Size"], one["LastModified"])

    @override
    def public_url(self, key: str, seconds: int, download_name: str | None = None) -> str | None:
        if self._public_client is None:
            return None
        parameters = {"Bucket": self.bucket, "Key": self.prefix + key}
        if download_name is not None:
            parameters["ResponseContentDisposition"] = f'attachment; filename="{download_name}"'
        return self._public_client.generate_presigned_url("get_object", Params=parameters, ExpiresIn=seconds)

    @override
    def prepare(self) -> None:
        try:
            self._client.create_bucket(Bucket=self.bucket)
        except (self._client.exceptions.BucketAlreadyOwnedByYou, self._client.exceptions.BucketAlreadyExists):
            pass
        except self._failures as error:
            # Most likely not allowed; an operator may have made it, which the check tells.
            logger.info("bucket %s was not made: %s", self.bucket, error)
        self.check()

    @override
    def check(self) -> None:
        try:
            self._client.head_bucket(Bucket=self.bucket)
        except self._failures as error:
            raise ConfigurationError(
                f"The bucket {self.bucket} cannot be used: {error}. Create it, or mend FARM_STORE_URL, "
                f"FARM_S3_ENDPOINT_URL and the AWS credentials."
            ) from error


@contextmanager
def _store_errors(key: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turn a library's errors into ours."""
    try:
        yield
    except kinds as error:
        raise StoreError(f"The store failed on {key}: {error}") from error


def _s3_client(endpoint_url: str | None, timeout_seconds: float) -> "S3Client":
    import boto3
    from botocore.config import Config

    # Standard retries back off on 500, 503 and dropped connections; path addressing works with every server.
    config = Config(
        retries={"mode": "standard", "max_attempts": 5},
        s3={"addressing_style": "path"} if endpoint_url else {},
        connect_timeout=5,
        read_timeout=timeout_seconds,
        max_pool_connections=32,
    )
    client: S3Client = boto3.client("s3", endpoint_url=endpoint_url, config=config)
    return client


def open_store(settings: Settings) -> ObjectStore:
    """The store that the settings name; nothing is contacted yet."""
    url = urlsplit(settings.effective_store_url)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return DirectoryStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        return S3Store(
            url.netloc,
            unquote(url.path),
            settings.s3_endpoint_url,
            settings.s3_public_endpoint_url,
            settings.s3_timeout_seconds,
        )
    raise ConfigurationError(
        f"FARM_STORE_URL is {settings.effective_store_url!r}; write s3://bucket/prefix or file:///directory."
    )
