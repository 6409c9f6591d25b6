"""The gallery, the viewer and the comparison as pages: what stands in them, for whom, whatever prompts hold."""

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine, event

from farm.marks import Change, mark_image

HOSTILE = "<script>alert(1)</script> \u202egnp =cmd|' /C calc'!A0 {{ 7*7 }}"


def page(client: FlaskClient, path: str, status: int = 200) -> str:
    response = client.get(path)
    assert response.status_code == status, response.text
    return response.text


def tiles(text: str) -> list[int]:
    return [int(index) for index in re.findall(r'<li id="image-(?:\d+-)?(\d+)" class="tile', text)]


def test_a_picture_is_found_by_its_number(client: FlaskClient, farm) -> None:
    job_id = farm.submit(130)
    for query in ("number=100", "at=99"):
        shown = tiles(page(client, f"/jobs/{job_id}?{query}"))
        assert shown == list(range(60, 120))
    assert tiles(page(client, f"/jobs/{job_id}?number=99999"))[-1] == 129
    assert tiles(page(client, f"/jobs/{job_id}?number="))[0] == 0
    page(client, f"/jobs/{job_id}?number=0", 422)
    page(client, f"/jobs/{job_id}?at=x", 422)


def test_filters_are_in_the_address_and_stay_in_all_links(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["a fox", "an owl"] * 70)
    text = page(client, f"/jobs/{job_id}?q=owl")
    assert tiles(text) == list(range(1, 120, 2))
    assert f'href="/jobs/{job_id}?after=119&amp;q=owl#pictures"' in text
    assert f'href="/jobs/{job_id}/images/1?q=owl"' in text
    assert f'href="/jobs/{job_id}/archive?q=owl"' in text
    assert 'value="owl"' in text
    viewer = page(client, f"/jobs/{job_id}/images/3?q=owl")
    assert f'rel="prev" href="/jobs/{job_id}/images/1?q=owl"' in viewer
    assert f'rel="next" href="/jobs/{job_id}/images/5?q=owl"' in viewer
    assert f'href="/jobs/{job_id}?at=3&amp;q=owl#image-3"' in viewer
    assert "No picture is like that" in page(client, f"/jobs/{job_id}?q=elk")


def test_where_the_pages_of_a_filter_begin(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["a fox", "an owl"] * 70)
    found = client.get(f"/jobs/{job_id}/fragments/found?q=owl").get_json()
    assert found == {"total": 70, "starts": [1, 121]}
    assert client.get(f"/jobs/{job_id}/fragments/found?q=elk").get_json() == {"total": 0, "starts": []}


def test_a_tile_tells_its_mark_its_tags_and_why_it_failed(client: FlaskClient, farm, engine: Engine) -> None:
    job_id = farm.submit(2)
    farm.fail(farm.start(job_id), HOSTILE)
    mark_image(engine, job_id, 0, Change(rating=-1, tags=("<b>tag</b>",)))
    text = page(client, f"/jobs/{job_id}")
    assert 'data-rating="-1"' in text
    assert "rejected" in text
    assert "<bdi>&lt;b&gt;tag&lt;/b&gt;</bdi>" in text
    assert '<span class="reason"><bdi>&lt;script&gt;' in text


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/{0}",
        "/jobs/{0}?q=alert",
        "/pictures",
        "/jobs/{0}/images/0",
        "/compare?pictures={0}:0,{0}:1",
        "/jobs/{0}/grid",
        "/jobs/{0}/grid?x=prompt",
    ],
)
def test_hostile_prompts_stay_text(client: FlaskClient, farm, path: str) -> None:
    job_id = farm.submit([HOSTILE, "x" * 10_000], negative_prompt=HOSTILE)
    farm.render(job_id, 2)
    text = page(client, path.format(job_id))
    assert "<script>alert" not in text
    assert "49" not in re.findall(r"<bdi>([^<]*)</bdi>", text)
    assert " style=" not in text


def test_pictures_of_all_jobs_are_leafed_through_both_ways(client: FlaskClient, farm) -> None:
    first, second = farm.submit(100), farm.submit(30)
    newest = page(client, "/pictures")
    assert tiles(newest) == [*range(29, -1, -1), *range(99, 69, -1)]
    assert f'id="older" href="/pictures?before={first}:70"' in newest
    assert 'id="newer"' not in newest
    older = page(client, f"/pictures?before={first}:70")
    assert tiles(older) == list(range(69, 9, -1))
    assert f'id="newer" href="/pictures?after={first}:69"' in older
    last = page(client, f"/pictures?before={first}:10")
    assert tiles(last) == list(range(9, -1, -1))
    assert 'id="older"' not in last
    assert tiles(page(client, f"/pictures?after={first}:69")) == tiles(newest)
    assert f'value="{second}:29"' in newest
    page(client, "/pictures?before=x", 422)
    assert "There is no picture yet" not in newest


def test_comparing_lists_what_differs_and_folds_the_rest(client: FlaskClient, farm) -> None:
    first, second = farm.complete(1, guidance_scale=3), farm.complete(1, guidance_scale=6)
    text = page(client, f"/compare?pictures={first}:0,{second}:0")
    differing = text.partition("<tbody>")[2].partition("</tbody>")[0]
    assert re.findall(r'<th scope="row">(\w+)', differing) == ["guidance_scale"]
    assert "num_inference_steps" in text.partition("</tbody>")[2]
    answer = client.get(f"/compare?picture={first}:0&picture={second}:0")
    assert answer.headers["Location"] == f"/compare?pictures={first}:0,{second}:0"
    for wrong in ("", f"?pictures={first}:0", "?pictures=" + ",".join(f"{first}:{n}" for n in range(5)), "?pictures=a"):
        page(client, f"/compare{wrong}", 422)
    page(client, f"/compare?pictures={first}:0,{first}:1", 404)


def test_the_viewer_says_how_to_render_again(client: FlaskClient, farm) -> None:
    job_id = farm.submit([HOSTILE])
    text = page(client, f"/jobs/{job_id}/images/0")
    assert "farm submit" in text
    assert "from producer import Farm" in text
    assert f'href="/jobs/new?from_job={job_id}&amp;image=0"' in text


@pytest.mark.parametrize(
    "path",
    ["/pictures", "/pictures?q=prompt", "/jobs/1?mark=unmarked", "/jobs/1/grid", "/jobs/1/images/0", "/api/v1/images"],
)
def test_pages_take_few_queries_however_many_pictures(client: FlaskClient, farm, engine: Engine, path: str) -> None:
    def count() -> int:
        seen: list[str] = []

        def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
            seen.append(statement)

        event.listen(type(engine), "before_cursor_execute", note)
        try:
            assert client.get(path).status_code == 200
        finally:
            event.remove(type(engine), "before_cursor_execute", note)
        assert not any("OFFSET" in statement.upper() for statement in seen)
        return len(seen)

    farm.complete(2)
    client.get(path)
    few = count()
    for _ in range(3):
        farm.complete(5)
    assert count() == few <= 10
