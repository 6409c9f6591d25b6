"""Lists of words: stored, named by templates, removed; and the form's ways to many images."""

import io

from flask.testing import FlaskClient


def test_a_list_is_stored_used_and_removed(client: FlaskClient) -> None:
    text = "# animals\nred fox\n\nowl\nowl\n"
    assert client.put("/api/v1/word-lists/animal", data=text).json == {"name": "animal", "words": ["red fox", "owl"]}
    form = {"prompts": "a __animal__", "templates": "all", "sweep": "steps: 5, 6", "seed": "7"}
    answer = client.post("/jobs/new", data=form)
    assert answer.status_code == 303
    images = client.get(answer.headers["Location"].replace("/jobs/", "/api/v1/jobs/") + "/images").json["images"]
    assert [(image["prompt"], image["num_inference_steps"], image["seed"]) for image in images] == [
        ("a red fox", 5, 7),
        ("a red fox", 6, 7),
        ("a owl", 5, 8),
        ("a owl", 6, 8),
    ]
    client.put("/api/v1/word-lists/animal", data="cat")
    assert client.get("/api/v1/word-lists").json == {"word_lists": [{"name": "animal", "words": ["cat"]}]}
    assert client.delete("/api/v1/word-lists/animal").status_code == 204
    assert client.delete("/api/v1/word-lists/animal").status_code == 404
    refused = client.post("/jobs/new", data=form)
    assert refused.status_code == 422
    assert "names the list &#39;animal&#39;; the lists of words are none yet" in refused.text


def test_a_list_that_cannot_be_is_refused(client: FlaskClient) -> None:
    for name, data, message in (
        ("Animal!", "cat", "write small letters"),
        ("a__b", "cat", "write small letters"),
        ("animal", "# nothing\n", "are missing; write one a line"),
        ("animal", "x" * 3000, "number 1 is too long"),
    ):
        answer = client.put(f"/api/v1/word-lists/{name}", data=data)
        assert answer.status_code == 422
        assert message in answer.text
    assert client.put("/api/v1/word-lists/animal", data=b"\xff").status_code == 400
    assert client.get("/api/v1/word-lists").json == {"word_lists": []}


def test_a_test_run_takes_the_first_images(client: FlaskClient) -> None:
    answer = client.post("/jobs/new", data={"prompts": "\n".join("abcdefgh"), "first": "4"})
    job = client.get(answer.headers["Location"].replace("/jobs/", "/api/v1/jobs/")).json
    assert job["images"]["total"] == 4


def test_columns_of_an_upload_are_told_what_they_are(client: FlaskClient) -> None:
    def post(columns: str) -> dict[str, object]:
        part = (io.BytesIO(b"Text,cfg\na fox,7\n"), "a.csv")
        return client.post("/api/v1/jobs", data={"file": part, "columns": columns}).json

    assert post('{"Text": "prompt", "cfg": ""}')["image_count"] == 1
    assert "must be an object of titles and parameters" in str(post('["Text"]'))
