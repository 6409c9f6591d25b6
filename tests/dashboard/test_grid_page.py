"""Grids: which picture lies in which cell, one sheet for each combination of what else varies; and sheets as pictures."""

import io
import re

import pytest
from flask.testing import FlaskClient
from PIL import Image

HOSTILE = "<script>alert(1)</script> \u202egnp =cmd"


def cells(text: str) -> list[list[int | None]]:
    """Rows of the table, each with the indices of its pictures."""
    body = text.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = []
    for row in body.split("<tr>")[1:]:
        found = [re.search(r"/images/(\d+)\"", part) for part in row.split("<td>")[1:]]
        rows.append([int(match[1]) if match else None for match in found])
    return rows


def heads(text: str, scope: str) -> list[str]:
    return re.findall(rf'<th scope="{scope}"><bdi>(.*?)</bdi>', text)


def page(client: FlaskClient, job_id: int, query: str = "") -> str:
    response = client.get(f"/jobs/{job_id}/grid{query}")
    assert response.status_code == 200
    return response.text


def test_the_axes_of_the_sweep_come_first(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox"], sweep="guidance_scale: 3, 5; steps: 2, 3, 4")
    text = page(client, job_id)
    assert cells(text) == [[0, 3], [1, 4], [2, 5]]
    assert heads(text, "col") == ["3.0", "5.0"]
    assert heads(text, "row") == ["2", "3", "4"]
    turned = page(client, job_id, "?x=steps&y=guidance_scale")
    assert cells(turned) == [[0, 1, 2], [3, 4, 5]]


def test_what_else_varies_makes_a_sheet_each(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox", "owl"], sweep="guidance_scale: 3, 5; steps: 2, 3", images_per_prompt=2)
    assert [cells(page(client, job_id, f"?sheet={number}")) for number in range(4)] == [
        [[0, 4], [2, 6]],
        [[1, 5], [3, 7]],
        [[8, 12], [10, 14]],
        [[9, 13], [11, 15]],
    ]
    text = page(client, job_id, "?sheet=1")
    assert "2 of 4" in text
    assert "seed <strong><bdi>8</bdi>" in text
    assert cells(page(client, job_id, "?sheet=99")) == [[9, 13], [11, 15]]


def test_a_single_axis_and_prompts_as_rows(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox", HOSTILE], sweep="guidance_scale: 3, 5")
    text = page(client, job_id, "?x=guidance_scale&y=prompt")
    # Seeds count on from prompt to prompt: that makes no sheets.
    assert cells(text) == [[0, 1], [2, 3]]
    assert "Sheet" not in text
    assert "<script>alert" not in text
    assert cells(page(client, job_id, "?x=guidance_scale&y=none")) == [[0, 1]]


def test_sizes_are_one_axis(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox"], sweep="size: 64x128, 128x64")
    text = page(client, job_id)
    assert heads(text, "col") == ["64x128", "128x64"]


def test_a_job_without_a_sweep_has_a_grid_too(client: FlaskClient, farm) -> None:
    text = page(client, farm.submit(["fox", "owl"], images_per_prompt=3))
    assert sorted(index for row in cells(text) for index in row if index is not None) == list(range(6))
    assert cells(page(client, farm.submit(1))) == [[0]]


def test_long_axes_are_shown_in_parts(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox"], sweep="guidance_scale: 1..70")
    text = page(client, job_id)
    assert len(heads(text, "col")) == 60
    assert "Further columns" in text
    rest = page(client, job_id, "?columns_from=60")
    assert cells(rest) == [list(range(60, 70))]
    assert "Columns before" in rest


@pytest.mark.parametrize(
    "query", ["?x=nonsense", "?x=stpes", "?x=seed&y=seed", "?sheet=-1", "?columns_from=x", "?after=x"]
)
def test_impossible_axes_are_explained(client: FlaskClient, farm, query: str) -> None:
    response = client.get(f"/jobs/{farm.submit(2)}/grid{query}")
    assert response.status_code == 422
    if query == "?x=stpes":
        assert "did you mean" in response.text


def opened(data: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture.convert("RGB")


def test_the_grid_as_a_picture(client: FlaskClient, farm) -> None:
    job_id = farm.submit(["fox"], sweep="guidance_scale: 3, 5; steps: 2, 3", seed=50)
    farm.render(job_id, 3)
    response = client.get(f"/jobs/{job_id}/grid.png?cell=64")
    assert (response.status_code, response.mimetype) == (200, "image/png")
    assert f'filename="job-{job_id}-grid.png"' in response.headers["Content-Disposition"]
    picture = opened(response.data)
    colours = [colour for _, colour in picture.getcolors(2**20) or []]
    # All three have the seed's colour; the fourth is not finished.
    assert any(abs(red - 50) < 8 and abs(green - 80) < 8 for red, green, _ in colours)
    smaller = opened(client.get(f"/jobs/{job_id}/grid.jpg?cell=32").data)
    assert smaller.width < picture.width
    assert client.get(f"/jobs/{job_id}/grid.gif").status_code == 404
    assert client.get(f"/jobs/{job_id}/grid.png?cell=5000").status_code == 422


def test_a_contact_sheet_in_reading_order(client: FlaskClient, farm) -> None:
    job_id = farm.complete(5, seed=20)
    one = opened(client.get(f"/jobs/{job_id}/sheet.webp?cell=64&columns=5").data)
    two = opened(client.get(f"/jobs/{job_id}/sheet.png?cell=64&columns=5&images=0,2").data)
    assert one.height == two.height
    assert one.width > two.width
    assert client.get(f"/jobs/{farm.submit(1)}/sheet.png").status_code == 422
    assert client.get("/jobs/99/sheet.png").status_code == 404


def test_what_would_be_too_large_is_refused(client: FlaskClient, farm) -> None:
    job_id = farm.complete(60)
    response = client.get(f"/jobs/{job_id}/sheet.png?cell=1024")
    assert response.status_code == 422
    assert "smaller cells" in response.text
