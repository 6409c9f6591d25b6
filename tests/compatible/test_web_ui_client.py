"""A client of A1111's web UI, unmodified, makes pictures here."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageChops, ImageDraw
from running import RunningFarm, wait_until
from webuiapi import WebUIApi

from farm.formats import read_parameters

QUICK = {"steps": 3, "width": 128, "height": 96, "cfg_scale": 5.0, "seed": 42}
LONG = {**QUICK, "steps": 900}


@pytest.fixture(scope="module")
def api(farm: RunningFarm) -> WebUIApi:
    """As one who knows but a name and a password."""
    return WebUIApi(baseurl=f"{farm.url}/sdapi/v1", username="anybody", password=farm.token)


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB")).astype(int)


def parameters(result: object, number: int = 0) -> dict:
    data = base64.b64decode(result.json["images"][number])  # type: ignore[attr-defined]
    return read_parameters(data)["parameters"]


def scene() -> Image.Image:
    picture = Image.new("RGB", (128, 96), (40, 90, 160))
    ImageDraw.Draw(picture).ellipse((20, 20, 70, 70), (220, 180, 60))
    return picture


def newest(farm: RunningFarm) -> dict:
    return farm.client.request("GET", "/api/v1/jobs?limit=1").json()["jobs"][0]


def render(farm: RunningFarm, prompt: str, **fields: object) -> list[np.ndarray]:
    job = farm.client.submit([prompt], **fields)
    farm.await_job(job.id)
    found = [farm.client.request("GET", image["file_url"]).content for image in farm.images(job.id)]
    return [pixels(Image.open(BytesIO(data))) for data in found]


def test_pictures_are_those_that_the_farm_renders_for_the_same_spec(farm: RunningFarm, api: WebUIApi) -> None:
    result = api.txt2img(
        prompt="a (red:1.3) fox, <lora:tiny-warm:0.8>",
        negative_prompt="dark",
        sampler_name="DPM++ 2M",
        scheduler="karras",
        n_iter=2,
        **QUICK,
    )
    job = newest(farm)
    assert (job["name"], job["priority"]) == ("a1111: a (red)1.3 fox,", 100)
    same = render(
        farm,
        "a (red)1.3 fox,",
        prompt_syntax="compel",
        negative_prompt="dark",
        loras=["tiny-warm:0.8"],
        scheduler="dpmpp_2m_karras",
        images_per_prompt=2,
        steps=3,
        size="128x96",
        guidance_scale=5.0,
        seed=42,
    )
    assert len(result.images) == 2
    for picture, expected in zip(result.images, same, strict=True):
        assert (pixels(picture) == expected).all()
    assert result.info["all_seeds"] == [42, 43]
    assert (result.info["sampler_name"], result.info["steps"], result.info["width"]) == ("DPM++ 2M Karras", 3, 128)
    assert result.images[0].text["parameters"] == result.info["infotexts"][0]
    assert result.parameters["prompt"] == "a (red:1.3) fox, <lora:tiny-warm:0.8>"
    again = api.txt2img(prompt="a fox", **{**QUICK, "seed": -1})
    seed = again.info["seed"]
    assert (pixels(api.txt2img(prompt="a fox", **{**QUICK, "seed": seed}).image) == pixels(again.image)).all()


def test_a_picture_to_start_from(farm: RunningFarm, api: WebUIApi) -> None:
    result = api.img2img(images=[scene()], prompt="a castle", denoising_strength=0.6, **{**QUICK, "steps": 5})
    (same,) = render(
        farm,
        "a castle",
        image=farm.client.upload(png(scene())),
        strength=0.6,
        steps=5,
        scheduler="euler_a",
        size="128x96",
        guidance_scale=5.0,
        seed=42,
    )
    assert (pixels(result.image) == same).all()
    cropped = api.img2img(images=[Image.new("RGB", (96, 96))], resize_mode=1, prompt="a castle", **QUICK)
    assert parameters(cropped)["width"] == 128


def png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_white_in_the_mask_is_painted_anew_and_the_rest_stays(api: WebUIApi) -> None:
    mask = Image.new("L", (128, 96), 0)
    mask.paste(255, (64, 0, 128, 96))
    ask = {"images": [scene()], "prompt": "a castle", "denoising_strength": 1.0, "mask_blur": 2, **QUICK}
    right = api.img2img(mask_image=mask, **ask)
    left = api.img2img(mask_image=mask, inpainting_mask_invert=1, **ask)
    for result, kept, painted in ((right, slice(0, 56), slice(72, 128)), (left, slice(72, 128), slice(0, 56))):
        changed = np.abs(pixels(result.image) - pixels(scene()))
        assert (changed[:, kept] == 0).all()
        assert changed[:, painted].mean() > 10
    assert parameters(right)["padding_mask_crop"] == 0
    # The whole picture goes through the pipeline, and the refiner too.
    whole = api.img2img(mask_image=ImageChops.invert(mask), inpaint_full_res=False, **{**ask, "steps": 6})
    assert parameters(whole)["padding_mask_crop"] is None
    assert parameters(whole)["refiner_split"] == 0.8


def test_progress_shows_the_picture_and_interrupting_ends_it(farm: RunningFarm, api: WebUIApi) -> None:
    assert api.get_progress()["state"]["job_count"] == 0
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(api.txt2img, prompt="a long one", **LONG)

        def seen() -> dict | None:
            told = WebUIApi.get_progress(other)
            return told if told["current_image"] and told["progress"] > 0 else None

        other = WebUIApi(baseurl=api.baseurl, username="x", password=farm.token)
        told = wait_until(seen, "a preview")
        assert told["state"]["sampling_steps"] == 900
        assert 0 < told["progress"] < 1
        assert Image.open(BytesIO(base64.b64decode(told["current_image"]))).size == (16, 12)
        other.interrupt()
        assert asked.result().images == []
    assert newest(farm)["state"] == "cancelled"


def test_what_clients_ask_before_they_begin(api: WebUIApi) -> None:
    assert {"Euler a", "DPM++ 2M", "DDIM"} <= set(api.util_get_sampler_names())
    assert "karras" in api.util_get_scheduler_names()
    assert "tiny" in api.util_get_model_names()
    assert "tiny-warm" in [lora["name"] for lora in api.get_loras()]
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert [upscaler["name"] for upscaler in api.get_upscalers()] == ["None"]
    assert api.get_face_restorers() == api.get_hypernetworks() == api.get_sd_vae() == []


def test_the_checkpoint_of_ones_settings(farm: RunningFarm, api: WebUIApi) -> None:
    assert api.util_get_current_model() == "tiny"
    api.util_set_model("tiny-turbo")
    assert api.util_get_current_model() == "tiny-turbo"
    # No worker loaded it, and one request may take another.
    with pytest.raises(RuntimeError, match="farm worker --pipeline tiny-turbo"):
        api.txt2img(prompt="a fox", **QUICK)
    told = api.txt2img(prompt="a fox", override_settings={"sd_model_checkpoint": "tiny"}, **QUICK)
    assert told.info["sd_model_name"] == "tiny"
    assert api.set_options({"sd_model_checkpoint": "tiny", "show_progress_every_n_steps": 3}) == {
        "ignored": ["show_progress_every_n_steps"]
    }
    assert api.set_options({"sd_model_checkpoint": "nothing"})["detail"].startswith("There is no pipeline 'nothing'")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": "a fox", "enable_hr": True}, "enable_hr"),
        ({"prompt": "a [fox|owl]"}, "alternates"),
        ({"prompt": "a <lora:nothing:1> fox"}, "nothing"),
        ({"prompt": "a fox", "sampler_name": "DPM fast"}, "sampler_name"),
        ({"prompt": "a fox", "steps": 5000}, "steps"),
        ({"prompt": "a fox", "override_settings": {"sd_vae": "x"}}, "sd_vae"),
        ({"prompt": "a fox", "alwayson_scripts": {"Dynamic": {"args": [1]}}}, "Dynamic"),
        ({"prompt": ""}, "prompt: is empty"),
    ],
)
def test_what_is_not_possible_is_named(api: WebUIApi, arguments: dict, message: str) -> None:
    with pytest.raises(RuntimeError) as refused:
        api.txt2img(**{**QUICK, **arguments})
    status, text = refused.value.args
    assert status == 422
    assert message in json.loads(text)["detail"]
