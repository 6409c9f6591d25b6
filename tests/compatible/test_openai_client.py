"""The official OpenAI package, unmodified, makes pictures here."""

import asyncio
import base64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from PIL import Image, ImageDraw
from running import RunningFarm, wait_until

from farm.formats import read_parameters

SIZE = "128x96"
QUICK = {"num_inference_steps": 3, "refiner_split": None, "seed": 42}
#: A form cannot say null.
FORM = {**QUICK, "refiner_split": "none"}
LONG = {"num_inference_steps": 900, "refiner_split": None}


@pytest.fixture(scope="module")
def client(farm: RunningFarm) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{farm.url}/v1", api_key=farm.token, max_retries=0) as client:
        yield client


def png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def scene() -> Image.Image:
    picture = Image.new("RGB", (128, 96), (40, 90, 160))
    ImageDraw.Draw(picture).ellipse((20, 20, 70, 70), (220, 180, 60))
    return picture


def pixels(data: bytes | Image.Image) -> np.ndarray:
    picture = data if isinstance(data, Image.Image) else Image.open(BytesIO(data))
    return np.asarray(picture.convert("RGB")).astype(int)


def bytes_of(image: openai.types.Image) -> bytes:
    return base64.b64decode(image.b64_json or "")


def newest(farm: RunningFarm) -> dict:
    return farm.client.request("GET", "/api/v1/jobs?limit=1").json()["jobs"][0]


def test_pictures_are_those_that_the_farm_renders_for_the_same_spec(farm: RunningFarm, client: openai.OpenAI) -> None:
    answer = client.images.generate(
        prompt="a red fox", n=2, size=SIZE, extra_body={**QUICK, "negative_prompt": "dark", "loras": ["tiny-warm:0.8"]}
    )
    assert answer.size == SIZE
    assert [image.seed for image in answer.data] == [42, 43]
    job = newest(farm)
    assert (job["name"], job["priority"], job["images"]["total"]) == ("openai: a red fox", 100, 2)
    same = farm.client.submit(
        ["a red fox"], images_per_prompt=2, size=SIZE, negative_prompt="dark", loras=["tiny-warm:0.8"], **QUICK
    )
    farm.await_job(same.id)
    for image, expected in zip(answer.data, farm.images(same.id), strict=True):
        data = farm.client.request("GET", expected["file_url"]).content
        assert (pixels(bytes_of(image)) == pixels(data)).all()
        assert read_parameters(bytes_of(image))["parameters"]["num_inference_steps"] == 3
    again = client.images.generate(
        prompt="a red fox", n=2, size=SIZE, extra_body={**QUICK, "negative_prompt": "dark", "loras": ["tiny-warm:0.8"]}
    )
    assert [pixels(bytes_of(one)).tolist() for one in again.data] == [
        pixels(bytes_of(one)).tolist() for one in answer.data
    ]


def test_an_address_shows_its_picture_without_a_token(farm: RunningFarm, client: openai.OpenAI) -> None:
    answer = client.images.generate(
        model="dall-e-3", prompt="a fox", size=SIZE, output_format="webp", output_compression=80, extra_body=QUICK
    )
    (image,) = answer.data
    assert image.b64_json is None
    fetched = httpx.get(image.url)
    assert fetched.headers["content-type"] == "image/webp"
    shown = read_parameters(fetched.content)["parameters"]
    assert (shown["prompt"], shown["output_quality"], shown["pipeline"]) == ("a fox", 80, "tiny")
    assert image.revised_prompt == "a fox"
    url = image.url
    assert httpx.get(url[:-3] + ("AAA" if not url.endswith("AAA") else "BBB")).status_code == 404


def test_partial_images_come_while_the_picture_is_denoised(client: openai.OpenAI) -> None:
    extra = {"num_inference_steps": 900, "refiner_split": 0.9, "seed": 5}
    with client.images.generate(
        prompt="a fox", size=SIZE, stream=True, partial_images=2, output_format="jpeg", extra_body=extra
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [event.partial_image_index for event in events[:2]] == [0, 1]
    assert {(event.size, event.output_format) for event in events} == {(SIZE, "jpeg")}
    shown = [Image.open(BytesIO(base64.b64decode(event.b64_json))) for event in events]
    assert {(picture.format, picture.size) for picture in shown} == {("JPEG", (128, 96))}
    assert events[-1].usage.total_tokens == 0
    assert events[0].b64_json != events[1].b64_json


def test_what_is_transparent_in_the_mask_is_painted_anew(farm: RunningFarm, client: openai.OpenAI) -> None:
    opaque, transparent = (0, 0, 0, 255), (0, 0, 0, 0)
    mask = Image.new("RGBA", (128, 96), opaque)
    mask.paste(transparent, (64, 0, 128, 96))
    forest, castle = (
        pixels(bytes_of(client.images.edit(image=png(scene()), mask=png(mask), prompt=prompt, extra_body=FORM).data[0]))
        for prompt in ("a green forest", "a red castle")
    )
    differ = np.abs(forest - castle)
    assert differ[:, 72:].mean() > 3 * differ[:, :56].mean()
    # The farm's own masks are white where the picture is painted anew.
    white = Image.new("L", (128, 96), 0)
    white.paste(255, (64, 0, 128, 96))
    ours = farm.client.submit(
        ["a green forest"],
        image=farm.client.upload(png(scene())),
        mask_image=farm.client.upload(png(white)),
        **QUICK,
    )
    farm.await_job(ours.id)
    (image,) = farm.images(ours.id)
    assert (forest == pixels(farm.client.request("GET", image["file_url"]).content)).all()


def test_a_picture_without_a_mask_is_changed_as_a_whole_or_where_it_is_transparent(client: openai.OpenAI) -> None:
    extra = {"strength": 0.5, "loras": ["tiny-warm:0.5"], "scheduler_options": {"timestep_spacing": "trailing"}}
    whole = client.images.edit(image=png(scene()), prompt="a castle", extra_body={**FORM, **extra})
    shown = read_parameters(bytes_of(whole.data[0]))["parameters"]
    assert shown["loras"] == [{"name": "tiny-warm", "weight": 0.5}]
    assert shown["scheduler_options"]["timestep_spacing"] == "trailing"
    assert (shown["strength"], shown["mask_image"], shown["width"], shown["height"]) == (0.5, None, 128, 96)
    holed = scene().convert("RGBA")
    holed.paste((0, 0, 0, 0), (0, 0, 64, 96))
    partly = client.images.edit(image=[png(holed)], prompt="a castle", extra_body=FORM)
    assert read_parameters(bytes_of(partly.data[0]))["parameters"]["mask_image"] is not None


def test_variations(client: openai.OpenAI) -> None:
    with pytest.warns(DeprecationWarning, match="deprecated"):
        answer = client.images.create_variation(image=png(scene()), n=2, response_format="b64_json", extra_body=FORM)
    one, other = (bytes_of(image) for image in answer.data)
    assert read_parameters(one)["parameters"]["image"].startswith("sha256:")
    assert (pixels(one) != pixels(other)).any()


def test_models_are_the_pipelines(client: openai.OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert {"tiny", "tiny-turbo", "sdxl-1.0"} <= set(names)
    assert client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve("gpt-image-1").object == "model"
    with pytest.raises(openai.NotFoundError) as refused:
        client.images.generate(model="midjourney", prompt="a fox")
    assert (refused.value.param, refused.value.code) == ("model", "model_not_found")
    assert "tiny" in refused.value.message


@pytest.mark.parametrize(
    ("arguments", "param", "message"),
    [
        ({"n": 11}, "n", "less than or equal to 10"),
        ({"size": "130x96"}, "size", "not divisible by 8"),
        ({"size": "huge"}, "size", "width x height"),
        ({"background": "transparent"}, "background", "leave it out"),
        ({"output_format": "gif"}, "output_format", "png"),
        ({"extra_body": {"guidance_skale": 3}}, "guidance_skale", "guidance_scale"),
        ({"extra_body": {"priority": 1}}, "priority", "no parameter"),
        ({"extra_body": {"num_inference_steps": 0}}, "num_inference_steps", "greater than or equal to 1"),
        ({"extra_body": {"loras": ["nothing"]}}, "loras", "nothing"),
        ({"extra_body": {"svg": {"model": "x"}}}, "svg", "no parameter"),
        ({"prompt": " "}, "prompt", "is empty"),
    ],
)
def test_bad_requests_name_the_parameter(client: openai.OpenAI, arguments: dict, param: str, message: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(**{"prompt": "a fox", **arguments})
    assert refused.value.param == param
    assert message in refused.value.message
    assert refused.value.type == "invalid_request_error"


def test_pictures_that_cannot_be_used_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.images.edit(image=b"no picture", prompt="a fox")
    assert refused.value.param == "image"
    for mask in (Image.new("RGBA", (64, 64)), Image.new("L", (128, 96))):
        with pytest.raises(openai.BadRequestError) as refused:
            client.images.edit(image=png(scene()), mask=png(mask), prompt="a fox")
        assert refused.value.param == "mask"
    with pytest.raises(openai.BadRequestError, match="send one"):
        client.images.edit(image=[png(scene()), png(scene())], prompt="a fox")


def test_who_may_not_is_told_so_in_the_packages_own_errors(farm: RunningFarm) -> None:
    def token(**fields: object) -> str:
        made = farm.client.request("POST", "/api/v1/tokens", json={"name": "a token", **fields})
        return made.json()["token"]

    def ask(key: str) -> None:
        with openai.OpenAI(base_url=f"{farm.url}/v1", api_key=key, max_retries=0) as client:
            client.images.generate(prompt="a fox", size=SIZE, n=2, extra_body=QUICK)

    with pytest.raises(openai.AuthenticationError, match="API token") as refused:
        ask("farm_wrong")
    assert refused.value.code == "invalid_api_key"
    with pytest.raises(openai.PermissionDeniedError, match="scope submit"):
        ask(token(scopes=["read"]))
    with pytest.raises(openai.RateLimitError) as refused:
        ask(token(images_per_day=1))
    assert refused.value.code == "insufficient_quota"
    assert int(refused.value.response.headers["retry-after"]) > 0


def test_a_pipeline_without_workers_is_told_at_once(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="farm worker --pipeline sdxl-1.0") as refused:
        client.images.generate(model="sdxl-1.0", prompt="a fox")
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"] == "10"


def test_a_prompt_that_cannot_be_rendered_is_an_error_of_the_server(client: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError, match="no finite embedding") as refused:
        client.images.generate(
            prompt='("a fox", "an owl").blend(1, -1)', size=SIZE, extra_body={**QUICK, "prompt_syntax": "compel"}
        )
    assert refused.value.response.headers["x-should-retry"] == "false"


def test_who_hangs_up_waits_for_nothing(farm: RunningFarm, client: openai.OpenAI) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="left alone", size=SIZE, timeout=1.0, extra_body=LONG)
    wait_until(lambda: newest(farm)["state"] == "cancelled", "the cancellation of what nobody waits for")
    assert newest(farm)["name"] == "openai: left alone"
    with client.images.generate(prompt="left too", size=SIZE, stream=True, partial_images=1, extra_body=LONG) as stream:
        assert next(stream).type == "image_generation.partial_image"
    wait_until(lambda: newest(farm)["state"] == "cancelled", "the cancellation of the stream's job")
    assert newest(farm)["name"] == "openai: left too"


def test_a_job_that_somebody_cancels_is_a_conflict(farm: RunningFarm, client: openai.OpenAI) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(client.images.generate, prompt="a conflict", size=SIZE, extra_body=LONG)
        wait_until(lambda: newest(farm)["name"] == "openai: a conflict", "the job")
        farm.client.job(newest(farm)["id"]).cancel()
        with pytest.raises(openai.ConflictError, match="was cancelled"):
            asked.result()


def test_the_same_key_is_answered_with_the_same_pictures(farm: RunningFarm, client: openai.OpenAI) -> None:
    def ask(prompt: str) -> openai.types.ImagesResponse:
        headers = {"Idempotency-Key": "once"}
        return client.images.generate(prompt=prompt, size=SIZE, extra_headers=headers, extra_body={"steps": 4})

    first = ask("a fox")
    job = newest(farm)["id"]
    assert ask("a fox").data[0].b64_json == first.data[0].b64_json
    assert newest(farm)["id"] == job
    with pytest.raises(openai.ConflictError, match="once"):
        ask("an owl")


def test_callers_at_the_same_time_each_get_their_own(farm: RunningFarm) -> None:
    async def ask() -> list[openai.types.ImagesResponse]:
        async with openai.AsyncOpenAI(base_url=f"{farm.url}/v1", api_key=farm.token) as client:
            return await asyncio.gather(
                *(
                    client.images.generate(prompt=f"fox {number}", size=SIZE, extra_body={**QUICK, "seed": number})
                    for number in range(8)
                )
            )

    answers = asyncio.run(ask())
    told = [read_parameters(bytes_of(answer.data[0]))["parameters"] for answer in answers]
    assert [(one["prompt"], one["seed"]) for one in told] == [(f"fox {number}", number) for number in range(8)]


def test_quality_is_a_number_of_steps(client: openai.OpenAI) -> None:
    steps = {
        quality: read_parameters(bytes_of(client.images.generate(prompt="a fox", size=SIZE, quality=quality).data[0]))[
            "parameters"
        ]["num_inference_steps"]
        for quality in ("low", "medium", "high")
    }
    assert steps == {"low": 5, "medium": 10, "high": 15}


def test_the_documentations_example_runs(farm: RunningFarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatible.md").read_text(encoding="utf-8")
    example = page.split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{farm.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", farm.token)
    exec(compile(example, "docs/compatible.md", "exec"), {})
    with Image.open(tmp_path / "fox.png") as shown:
        assert shown.size == (512, 512)
