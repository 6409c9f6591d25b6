"""One suite for every object store."""

import threading
from pathlib import Path

import boto3
import httpx
import pytest

from farm.errors import ConfigurationError, ObjectCorruptError, ObjectMissingError, StoreError
from farm.settings import Settings
from farm.storage import DirectoryStore, ObjectStore, S3Store, get_verified, open_store, sha256


@pytest.fixture(params=["directory", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "directory":
        url, endpoint = f"{(tmp_path / 'with space').as_uri()}", None
    else:
        url, endpoint = f"s3://{request.getfixturevalue('bucket')}/a/prefix", request.getfixturevalue("s3_server")
    store = open_store(Settings(store_url=url, s3_endpoint_url=endpoint))
    store.prepare()
    store.check()
    return store


def test_what_is_put_is_got(store: ObjectStore) -> None:
    store.put("images/1/000000.png", b"first", "image/png")
    store.put("images/1/000000.png", b"second", "image/png")
    assert store.get("images/1/000000.png") == b"second"
    assert get_verified(store, "images/1/000000.png", sha256(b"second")) == b"second"


def test_what_is_there_is_said_to_be_there(store: ObjectStore) -> None:
    store.put("a/bc", b"1", "text/plain")
    assert [store.has(key) for key in ("a/bc", "a/b", "a", "a/bcd")] == [True, False, False, False]


def test_a_missing_object_is_said_to_be_missing(store: ObjectStore) -> None:
    with pytest.raises(ObjectMissingError, match="images/9/000009.png"):
        store.get("images/9/000009.png")


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    store.put("latents/1/2-3.safetensors", b"x", "application/octet-stream")
    store.delete("latents/1/2-3.safetensors")
    store.delete("latents/1/2-3.safetensors")
    with pytest.raises(ObjectMissingError):
        store.get("latents/1/2-3.safetensors")


def test_changed_bytes_are_noticed(store: ObjectStore) -> None:
    store.put("latents/1/1-1.safetensors", b"changed", "application/octet-stream")
    with pytest.raises(ObjectCorruptError):
        get_verified(store, "latents/1/1-1.safetensors", sha256(b"original"))


def test_a_reader_never_sees_half_an_object(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path)
    versions = [bytes([n]) * 400_000 for n in range(8)]
    store.put("k", versions[0], "x")
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                store.put("k", version, "x")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert all(store.get("k") in versions for _ in range(200))
    finally:
        stop.set()
        writer.join()
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_a_directory_store_takes_no_path_outside(tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "objects")
    for key in ("../x", "images/../../x"):
        with pytest.raises(ValueError, match="not a key"):
            store.get(key)


def test_signed_urls_name_the_download(s3_server: str, bucket: str) -> None:
    store = S3Store(bucket, "", s3_server, public_endpoint_url=s3_server)
    store.put("images/1/000000.png", b"picture", "image/png")
    url = store.public_url("images/1/000000.png", 60, download_name="000000_seed7.png")
    assert url is not None
    answer = httpx.get(url)
    assert answer.content == b"picture"
    assert answer.headers["content-disposition"] == 'attachment; filename="000000_seed7.png"'


def test_failures_of_the_store_are_told_apart_from_missing_objects(tmp_path: Path, s3_server: str) -> None:
    (tmp_path / "file").write_text("in the way")
    for store in (DirectoryStore(tmp_path / "file"), S3Store("no-such-bucket", "", s3_server, None)):
        with pytest.raises(StoreError):
            store.put("images/1/000000.png", b"", "image/png")
        with pytest.raises(ConfigurationError):
            store.check()


@pytest.mark.parametrize("url", ["s3://", "ftp://x/y", "/just/a/path", "file://elsewhere/x"])
def test_a_wrong_url_is_refused_with_the_remedy(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write s3://bucket/prefix or file:///directory"):
        open_store(Settings(store_url=url))


def test_objects_carry_their_content_type(s3_server: str, bucket: str) -> None:
    S3Store(bucket, "p", s3_server, None).put("t.webp", b"x", "image/webp")
    head = boto3.client("s3", endpoint_url=s3_server).head_object(Bucket=bucket, Key="p/t.webp")
    assert head["ContentType"] == "image/webp"


def test_prepare_makes_a_missing_bucket_and_may_be_repeated(s3_server: str) -> None:
    store = S3Store("made-by-prepare", "", s3_server, None)
    with pytest.raises(ConfigurationError, match="made-by-prepare"):
        store.check()
    store.prepare()
    store.prepare()
    store.check()
