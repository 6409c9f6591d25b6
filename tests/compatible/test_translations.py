"""What other APIs say, in the farm's words."""

import random
import re
from io import BytesIO

import pytest
from compel import Compel
from PIL import Image
from werkzeug.datastructures import MultiDict

from dashboard.compatible.bodies import form_values, read_base64
from dashboard.compatible.inputs import openai_mask, transparent_parts, web_ui_mask
from dashboard.compatible.web_ui_prompts import read_prompt
from dashboard.compatible.web_ui_samplers import sampler_fields
from farm.errors import InvalidSubmissionError
from farm.schedulers import SCHEDULERS


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a (red:1.3) fox", "a (red)1.3 fox"),
        ("a ((red)) [dull] fox", "a (red)1.21 (dull)0.909091 fox"),
        ("(a, (b:2) c:0.5)", "(a,)0.5 b (c)0.5"),
        (r"a \(b\) (c \(d\):1.2), e", r"a \(b\) (c \(d\))1.2 , e"),
        ("(unclosed fox", "(unclosed fox)1.1"),
        ("never opened) fox (x)", r"never opened\) fox (x)1.1"),
        ("C++ sci-fi, well- known (x:.5)5", "C ++ sci-fi, well - known (x)0.5 5"),
        ('say "hi" at 12:30 (x)', r"say \"hi\" at 12:30 (x)1.1"),
    ],
)
def test_weights_become_compels(theirs: str, ours: str) -> None:
    prompt = read_prompt("prompt", theirs)
    assert prompt.needs_compel
    assert prompt.in_compel() == ours


def test_compel_gives_every_word_the_weight_that_was_meant() -> None:
    """Whatever signs there are: weighted alike, or refused."""
    signs = ["a", "fox ", " ", "(", ")", "[", "]", ":1.2)", ":0.5)", ",", ".", "+", "-", "--", "\\(", "\\)", '"', "=", "b-c", ":", "5", "1.5", "'", "!", "\\", "{", "_"]  # fmt: skip
    draw, compared = random.Random(7), 0
    while compared < 150:
        text = "".join(draw.choices(signs, k=draw.randint(2, 12)))
        try:
            prompt = read_prompt("prompt", text)
            told = prompt.in_compel()
        except InvalidSubmissionError:
            continue
        if prompt.text.strip() and any(weight != 1 for _, weight in prompt.pieces):
            parsed = Compel.parse_prompt_string(told)
            heard = [(piece.text, piece.weight) for part in parsed.prompts for piece in part.children]
            assert without_blanks(heard) == without_blanks(prompt.pieces), text
            compared += 1


def without_blanks(pieces: object) -> list[tuple[str, float]]:
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:  # type: ignore[attr-defined]
        if bare := re.sub(r"\s+", "", text):
            if joined and abs(joined[-1][1] - weight) < 1e-4:
                joined[-1] = (joined[-1][0] + bare, joined[-1][1])
            else:
                joined.append((bare, round(weight, 4)))
    return joined


def test_a_plain_prompt_stays_plain_and_a_long_one_is_not_cut() -> None:
    assert not read_prompt("prompt", r"a fox \(red\), 5:4").needs_compel
    assert read_prompt("prompt", r"a fox \(red\), 5:4").text == "a fox (red), 5:4"
    assert read_prompt("prompt", "fox, " * 40).needs_compel


def test_loras_are_taken_out_of_the_prompt() -> None:
    prompt = read_prompt("prompt", "a fox <lora:warm:0.8> in <lora:cool> snow <glyph>")
    assert prompt.loras == (("warm", 0.8), ("cool", 1.0))
    assert prompt.text == "a fox  in  snow <glyph>"


@pytest.mark.parametrize(
    "prompt",
    [
        "[fox|owl]",
        "a [fox:owl:0.5]",
        "[fox:10]",
        "a fox AND an owl",
        "a fox BREAK snow",
        "<hypernet:x:1>",
        "<lora:a:1:2>",
    ],
)
def test_what_the_pipelines_cannot_do_is_refused(prompt: str) -> None:
    with pytest.raises(InvalidSubmissionError, match="prompt: "):
        read_prompt("prompt", prompt)


@pytest.mark.parametrize(
    ("asked", "fields"),
    [
        ((None, None, None), {}),
        ((None, "automatic", 1.0), {}),
        (("Euler a", "automatic", 1.0), {"scheduler": "euler_a"}),
        (("k_euler", None, None), {"scheduler": "euler"}),
        (("DPM++ 2M Karras", None, None), {"scheduler": "dpmpp_2m_karras"}),
        (("DPM++ 2M", None, None), {"scheduler": "dpmpp_2m_karras"}),
        (("DPM++ 2M", "Normal", None), {"scheduler": "dpmpp_2m"}),
        (("Euler", "karras", None), {"scheduler": "euler", "scheduler_options": {"use_karras_sigmas": True}}),
        (("DPM++ 2M SDE", None, None), {"scheduler": "dpmpp_2m_sde", "scheduler_options": {"use_exponential_sigmas": True}}),
        (("DDIM", "uniform", 0.5), {"scheduler": "ddim", "eta": 0.5}),
    ],
)  # fmt: skip
def test_samplers(asked: tuple[str | None, str | None, float | None], fields: dict) -> None:
    assert sampler_fields(*asked) == fields


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("DPM adaptive", None, None), "sampler_name"),
        (("Euler", "beta", None), "scheduler"),
        (("Euler a", "karras", None), "scheduler"),
        (("Euler a", None, 0.0), "eta"),
    ],
)
def test_samplers_that_there_are_not(asked: tuple[str | None, str | None, float | None], field: str) -> None:
    with pytest.raises(InvalidSubmissionError) as refused:
        sampler_fields(*asked)
    assert refused.value.problems[0].field == field


def test_every_scheduler_is_a_sampler() -> None:
    for entry in SCHEDULERS.values():
        assert sampler_fields(entry.label, "normal", None)["scheduler"] == entry.name


def png(picture: Image.Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_masks_of_openai_are_transparent_where_ours_are_white() -> None:
    mask = Image.new("RGBA", (4, 1))
    for x, alpha in enumerate((0, 127, 128, 255)):
        mask.putpixel((x, 0), (9, 9, 9, alpha))
    assert [*openai_mask(png(mask), (4, 1)).tobytes()] == [255, 255, 0, 0]
    assert transparent_parts(Image.new("RGBA", (4, 1), "red")) is None
    with pytest.raises(InvalidSubmissionError, match="4x1 pixels, and the image 8x8"):
        openai_mask(png(mask), (8, 8))


def test_masks_of_the_web_ui() -> None:
    grey = Image.new("L", (2, 1))
    grey.putpixel((1, 0), 255)
    read = {"inverted": False, "blur": 0.0}
    assert [*web_ui_mask(png(grey), (2, 1), **read).tobytes()] == [0, 255]  # type: ignore[arg-type]
    assert [*web_ui_mask(png(grey), (2, 1), inverted=True, blur=0).tobytes()] == [255, 0]
    assert web_ui_mask(png(grey), (4, 2), **read).size == (4, 2)  # type: ignore[arg-type]
    drawn = Image.new("RGBA", (2, 1))
    drawn.putpixel((1, 0), (0, 0, 0, 255))
    assert [*web_ui_mask(png(drawn), (2, 1), **read).tobytes()] == [0, 255]  # type: ignore[arg-type]
    wide = Image.new("L", (40, 1))
    wide.paste(255, (20, 0, 40, 1))
    blurred = [*web_ui_mask(png(wide), (40, 1), inverted=False, blur=3).tobytes()]
    assert blurred == sorted(blurred)
    assert len(set(blurred)) > 5


def test_forms_say_lists_and_objects() -> None:
    form = MultiDict([("n", "2"), ("loras[]", "a:1"), ("loras[]", "b"), ("scheduler_options[solver_order]", "2")])
    assert form_values(form) == {"n": "2", "loras": ["a:1", "b"], "scheduler_options": {"solver_order": "2"}}
    with pytest.raises(InvalidSubmissionError, match="both"):
        form_values(MultiDict([("a[]", "1"), ("a[b]", "2")]))


def test_base64_with_and_without_its_url() -> None:
    assert read_base64("mask", "AAEC") == read_base64("mask", "data:image/png;base64,AAEC") == b"\0\1\2"
    with pytest.raises(InvalidSubmissionError, match="mask: is no base64"):
        read_base64("mask", "http://127.0.0.1/secret.png")
