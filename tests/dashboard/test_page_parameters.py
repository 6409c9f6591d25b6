"""The folded part of the form."""

import io

from conformance.cases import LANDSCAPE, landscape, png
from flask.testing import FlaskClient

from dashboard.pages.submission import FORM_FIELDS
from farm.spec import ROW_FIELDS


def test_every_parameter_has_its_place_in_the_form(client: FlaskClient) -> None:
    page = client.get("/jobs/new").text
    # Size and seed stand there under other names, prompts in their own field.
    for name in set(ROW_FIELDS) - {"prompt", "width", "height"}:
        assert name in FORM_FIELDS
        assert f'name="{name}"' in page, name


def test_a_picture_is_uploaded_with_the_form(client: FlaskClient) -> None:
    form = {
        "prompts": "a castle",
        "size": "192x128",
        "strength": "0.7",
        "scheduler": "ddim",
        "eta": "0.5",
        "image_file": (io.BytesIO(png(landscape())), "house.png"),
    }
    answer = client.post("/jobs/new", data=form)
    assert answer.status_code == 303
    job_id = answer.headers["Location"].split("?")[0].rpartition("/")[2]
    image = client.get(f"/api/v1/jobs/{job_id}/images/0").json
    assert (image["image"], image["strength"], image["scheduler"], image["eta"]) == (LANDSCAPE, 0.7, "ddim", 0.5)
    shown = client.get(f"/jobs/{job_id}/images/0").text
    assert "<dt>strength</dt><dd><bdi>0.7</bdi>" in shown
    assert "aesthetic_score" not in shown


def test_what_is_wrong_is_shown_unfolded_beside_its_field(client: FlaskClient) -> None:
    answer = client.post(
        "/jobs/new", data={"prompts": "a", "eta": "0.5", "mask_image_file": (io.BytesIO(b"x"), "m.png")}
    )
    assert answer.status_code == 422
    assert 'id="wrong-mask_image"' in answer.text
    assert "is no picture" in answer.text
    answer = client.post("/jobs/new", data={"prompts": "a", "eta": "0.5"})
    assert 'id="wrong-eta"' in answer.text
    assert '<details class="folded" open>' in answer.text
    assert client.get("/api/v1/jobs").json["jobs"] == []
