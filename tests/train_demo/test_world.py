"""The demo's world, its words, and the judge, who must be right about pictures whose truth is known."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from PIL import Image, ImageFilter

from tools.train_demo.captions import say, vocabulary
from tools.train_demo.judge import judge, look, sharpness
from tools.train_demo.world import COLOURS, Layout, Scene, Shape, Style, Thing, draw, held_out, scenes

SCENE = Scene(
    "yellow", Style.FLAT, Layout.ABOVE, (Thing(Shape.CIRCLE, "red", "small"), Thing(Shape.SQUARE, "blue", "large"))
)


def test_scenes_are_the_same_again_and_differ_by_seed() -> None:
    assert [*islice(scenes(1), 20)] == [*islice(scenes(1), 20)] != [*islice(scenes(2), 20)]
    assert draw(SCENE, 64, 1).tobytes() == draw(SCENE, 64, 1).tobytes() != draw(SCENE, 64, 2).tobytes()


def test_what_is_held_out_is_never_trained() -> None:
    trained = {(thing, one.background) for one in islice(scenes(3), 3_000) for thing in one.things}
    assert not any(held_out(thing, background) for thing, background in trained)
    assert all(
        any(held_out(thing, one.background) for thing in one.things) for one in islice(scenes(3, held_out=True), 200)
    )
    # All that the words speak of is trained, in other company.
    assert {thing.colour for thing, _ in trained} == set(COLOURS) == {background for _, background in trained}
    assert {thing.shape for thing, _ in trained} == set(Shape)


def test_what_is_said() -> None:
    assert say(SCENE) == "a small red circle above a large blue square on a yellow background"
    row = Scene("white", Style.OUTLINE, Layout.ROW, tuple(Thing(shape, "orange", "medium") for shape in [*Shape][:3]))
    assert say(row) == (
        "an orange circle, an orange square and an orange triangle in a row on a white background, outline"
    )
    said = {
        word for seed, one in enumerate(islice(scenes(4), 2_000)) for word in say(one, seed).replace(",", "").split()
    }
    assert said <= {*vocabulary()}
    assert {"disc", "tiny", "huge", "under", "shaded"} <= said


@pytest.mark.parametrize("style", Style)
def test_the_judge_sees_what_was_drawn(style: Style) -> None:
    several = [replace(one, style=style) for one in islice(scenes(5, held_out=None), 80)]
    verdicts = [judge(one, draw(one, 256, seed)) for seed, one in enumerate(several)]
    wrong = [
        (one, seed) for seed, (one, verdict) in enumerate(zip(several, verdicts, strict=True)) if not verdict.layout
    ]
    assert wrong == []


def test_the_judge_sees_what_is_not_as_it_was_said() -> None:
    first, second = SCENE.things
    for said, right in (
        (SCENE, (True, True, True, True)),
        (replace(SCENE, background="green"), (False, True, True, True)),
        (replace(SCENE, layout=Layout.BELOW), (True, True, True, False)),
        (replace(SCENE, things=(replace(first, colour="green"), second)), (True, False, False, False)),
        (replace(SCENE, things=(replace(first, shape=Shape.STAR), second)), (True, False, False, False)),
        (replace(SCENE, things=(first, replace(second, shape=Shape.TRIANGLE))), (True, True, False, False)),
    ):
        verdict = judge(said, draw(SCENE, 256))
        assert (verdict.background, verdict.main, verdict.all_things, verdict.layout) == right, said


def test_noise_and_nothing_are_no_scene() -> None:
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8))
    assert not judge(SCENE, noise).main
    assert look(Image.new("RGB", (256, 256), COLOURS["yellow"])).things == ()


def test_a_blurred_picture_is_less_sharp() -> None:
    sharp = draw(SCENE, 256)
    values = [sharpness(sharp.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 0.5, 1, 2)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 1.5 * values[-1]


def test_neither_noise_nor_contrast_is_sharpness() -> None:
    sharp = draw(SCENE, 256)
    noise = np.random.default_rng(1).integers(0, 8, (256, 256, 3))
    noisy = Image.fromarray(np.clip(np.asarray(sharp, np.int64) + noise, 0, 255).astype(np.uint8))
    assert sharpness(noisy) < sharpness(sharp)
    assert sharpness(sharp.point(lambda value: value // 2)) == pytest.approx(sharpness(sharp), rel=0.01)
    assert sharpness(Image.new("RGB", (256, 256), COLOURS["yellow"])) == 1
