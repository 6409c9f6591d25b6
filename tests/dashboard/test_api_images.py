"""Images over HTTP: lists, parameters, pictures."""

from collections.abc import Callable
from dataclasses import replace

import boto3
import pytest
from flask import Flask
from flask.testing import FlaskClient
from rows import keys_of

from farm.settings import Settings
from farm.spec import ImageParameters
from farm.storage import open_store, sha256


def test_images_are_paged_by_index(client: FlaskClient, farm) -> None:
    job_id = farm.submit(5)
    seen: list[int] = []
    after = None
    while True:
        query = {"limit": 2} if after is None else {"limit": 2, "after": after}
        page = client.get(f"/api/v1/jobs/{job_id}/images", query_string=query).get_json()
        seen += [image["index"] for image in page["images"]]
        after = page["next"]
        if after is None:
            break
    assert seen == [0, 1, 2, 3, 4]


def test_an_exact_page_has_no_next(client: FlaskClient, farm) -> None:
    job_id = farm.submit(2)
    assert client.get(f"/api/v1/jobs/{job_id}/images?limit=2").get_json()["next"] is None


def test_images_can_be_chosen_by_state(client: FlaskClient, farm) -> None:
    job_id = farm.submit(3)
    farm.render(job_id, 1)
    for state, indices in (("completed", [0]), ("pending", [1, 2]), ("failed", [])):
        images = client.get(f"/api/v1/jobs/{job_id}/images?state={state}").get_json()["images"]
        assert [image["index"] for image in images] == indices


@pytest.mark.parametrize("query", ["after=x", "after=-1", "limit=0", "state=ready", f"after={2**63}"])
def test_unreadable_query_parameters_are_refused(client: FlaskClient, farm, query: str) -> None:
    response = client.get(f"/api/v1/jobs/{farm.submit()}/images?{query}")
    assert response.status_code == 422
    assert response.get_json(force=True)["errors"][0]["field"] == query.split("=", maxsplit=1)[0]


def test_after_the_largest_number_there_is_nothing(client: FlaskClient, farm) -> None:
    response = client.get(f"/api/v1/jobs/{farm.submit()}/images?after={2**63 - 1}")
    assert response.get_json() == {"images": [], "next": None}


def test_a_finished_image_in_all_its_detail(client: FlaskClient, farm) -> None:
    job_id = farm.complete(seed=59, negative_prompt="blurry", size="256x512", steps=12, guidance_scale=4.5)
    digest = sha256(farm.square(59, "PNG"))
    image = client.get(f"/api/v1/jobs/{job_id}/images/0").get_json()
    assert image.pop("finished_at")
    # All parameters are told; these are the ones that were set, or that every picture has.
    assert set(ImageParameters.model_fields) <= set(image)
    assert image == image | {
        "index": 0,
        "state": "completed",
        "prompt": "prompt 0",
        "negative_prompt": "blurry",
        "seed": 59,
        "pipeline": "tiny",
        "width": 256,
        "height": 512,
        "num_inference_steps": 12,
        "guidance_scale": 4.5,
        "refiner_split": None,
        "sha256": digest,
        "error": None,
        "download_name": "000000_seed59.png",
        "url": f"/api/v1/jobs/{job_id}/images/0",
        "file_url": f"/api/v1/jobs/{job_id}/images/0/file",
        "thumbnail_url": f"/api/v1/jobs/{job_id}/images/0/thumbnail",
    }
    assert client.get(f"/api/v1/jobs/{job_id}/images").get_json()["images"][0]["sha256"] == digest


def test_a_failed_image_says_why(client: FlaskClient, farm) -> None:
    job_id = farm.submit()
    farm.fail(farm.start(job_id), "black picture")
    image = client.get(f"/api/v1/jobs/{job_id}/images/0").get_json()
    assert (image["state"], image["error"], image["file_url"]) == ("failed", "black picture", None)


def test_the_picture_itself(client: FlaskClient, farm) -> None:
    job_id = farm.complete(seed=59)
    image = client.get(f"/api/v1/jobs/{job_id}/images/0").get_json()
    response = client.get(image["file_url"])
    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert sha256(response.data) == image["sha256"]
    assert response.headers["ETag"] == f'"{image["sha256"]}"'
    assert "immutable" in response.headers["Cache-Control"]
    assert "Content-Disposition" not in response.headers
    again = client.get(image["file_url"], headers={"If-None-Match": response.headers["ETag"]})
    assert (again.status_code, again.data) == (304, b"")


def test_the_download_has_its_name(client: FlaskClient, farm) -> None:
    response = client.get(f"/api/v1/jobs/{farm.complete(seed=59)}/images/0/file?download=1")
    assert response.headers["Content-Disposition"] == 'attachment; filename="000000_seed59.png"'


def test_the_thumbnail(client: FlaskClient, farm) -> None:
    response = client.get(f"/api/v1/jobs/{farm.complete(seed=59)}/images/0/thumbnail")
    assert (response.status_code, response.mimetype) == (200, "image/webp")
    assert response.data == farm.square(59, "WEBP")


@pytest.mark.parametrize("part", ["file", "thumbnail"])
def test_a_picture_that_is_not_there_yet(client: FlaskClient, farm, part: str) -> None:
    assert client.get(f"/api/v1/jobs/{farm.submit()}/images/0/{part}").status_code == 404


def test_a_picture_that_the_store_has_lost(client: FlaskClient, farm) -> None:
    job_id = farm.complete()
    farm.store.delete(keys_of(farm.engine, job_id, 0)[0])
    response = client.get(f"/api/v1/jobs/{job_id}/images/0/file")
    assert (response.status_code, response.mimetype) == (404, "application/problem+json")


@pytest.mark.parametrize("index", [1, 2**31, 2**63, "9" * 5000])
def test_unknown_images_are_not_found(client: FlaskClient, farm, index: int | str) -> None:
    assert client.get(f"/api/v1/jobs/{farm.submit()}/images/{index}").status_code == 404


@pytest.fixture
def s3_settings(settings: Settings, bucket: str, s3_server: str) -> Settings:
    return settings.model_copy(
        update={
            "store_url": f"s3://{bucket}/farm",
            "s3_endpoint_url": s3_server,
            "s3_public_endpoint_url": "https://pictures.example:9000",
        }
    )


def test_where_browsers_reach_the_store_they_are_sent_there(
    let_in, make_app: Callable[[Settings], Flask], s3_settings: Settings, farm
) -> None:
    job_id = replace(farm, store=open_store(s3_settings)).complete(seed=59)
    client = let_in(make_app(s3_settings))
    response = client.get(f"/api/v1/jobs/{job_id}/images/0/file?download=1")
    assert response.status_code == 302
    assert response.headers["Location"].startswith("https://pictures.example:9000/")
    assert "000000_seed59.png" in response.headers["Location"]
    assert "img-src 'self' data: blob: https://pictures.example:9000;" in response.headers["Content-Security-Policy"]


def test_a_private_bucket_is_streamed_through(
    let_in, make_app: Callable[[Settings], Flask], s3_settings: Settings, farm, s3_server: str, bucket: str
) -> None:
    private = s3_settings.model_copy(update={"s3_public_endpoint_url": None})
    job_id = replace(farm, store=open_store(private)).complete(seed=59)
    client = let_in(make_app(private))
    assert client.get(f"/api/v1/jobs/{job_id}/images/0/file").data == farm.square(59, "PNG")
    s3 = boto3.client("s3", endpoint_url=s3_server)
    picture, thumbnail = keys_of(farm.engine, job_id, 0)
    s3.delete_object(Bucket=bucket, Key=f"farm/{picture}")
    assert client.get(f"/api/v1/jobs/{job_id}/images/0/file").status_code == 404
    s3.delete_object(Bucket=bucket, Key=f"farm/{thumbnail}")
    s3.delete_bucket(Bucket=bucket)
    response = client.get(f"/api/v1/jobs/{job_id}/images/0/file")
    assert (response.status_code, response.mimetype) == (502, "application/problem+json")
