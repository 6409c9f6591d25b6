"""The world of the demo model: one to three coloured shapes on a coloured background, drawn with Pillow.

A scene is said in words (``captions``) and drawn from the same numbers, so that a model can be taught what words mean,
and a judge (``judge``) knows what should be seen. Places and sizes are fractions of the picture's side; places are
counted from its upper left corner.
"""

import colorsys
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from PIL import Image, ImageDraw

Rgb = tuple[int, int, int]

COLOURS: dict[str, Rgb] = {
    "red": (214, 40, 40),
    "orange": (242, 140, 30),
    "yellow": (248, 214, 60),
    "green": (52, 150, 70),
    "blue": (40, 84, 190),
    "purple": (124, 60, 160),
    "pink": (242, 150, 186),
    "brown": (124, 78, 42),
    "black": (24, 24, 28),
    "white": (246, 246, 244),
    "grey": (138, 140, 146),
}
#: One on the other these are hard to see.
ALIKE = {
    frozenset((one, other))
    for one, others in {
        "red": ("orange", "brown", "purple", "pink"),
        "orange": ("yellow", "brown", "pink"),
        "brown": ("black", "grey", "purple", "green"),
        "white": ("yellow", "pink"),
        "purple": ("blue", "black", "grey"),
        "grey": ("pink", "green", "blue"),
        "blue": ("black", "green"),
    }.items()
    for other in others
}


class Shape(StrEnum):
    """What can be drawn."""

    CIRCLE = "circle"
    SQUARE = "square"
    TRIANGLE = "triangle"
    STAR = "star"
    RING = "ring"
    CROSS = "cross"


class Style(StrEnum):
    """How everything in a picture is drawn."""

    FLAT = "flat"
    OUTLINE = "outline"
    SOFT = "soft"


class Layout(StrEnum):
    """Where things stand: one thing in the picture, two to each other, or three in a row."""

    CENTRE = "centre"
    LEFT = "left"
    RIGHT = "right"
    TOP = "top"
    BOTTOM = "bottom"
    ABOVE = "above"
    BELOW = "below"
    LEFT_OF = "left of"
    RIGHT_OF = "right of"
    ROW = "row"


#: Half of a thing's height.
SIZES = {"small": 0.085, "medium": 0.12, "large": 0.21}
PLACES: dict[Layout, tuple[tuple[float, float], ...]] = {
    Layout.CENTRE: ((0.5, 0.5),),
    Layout.LEFT: ((0.26, 0.5),),
    Layout.RIGHT: ((0.74, 0.5),),
    Layout.TOP: ((0.5, 0.26),),
    Layout.BOTTOM: ((0.5, 0.74),),
    Layout.ABOVE: ((0.5, 0.26), (0.5, 0.74)),
    Layout.BELOW: ((0.5, 0.74), (0.5, 0.26)),
    Layout.LEFT_OF: ((0.26, 0.5), (0.74, 0.5)),
    Layout.RIGHT_OF: ((0.74, 0.5), (0.26, 0.5)),
    Layout.ROW: ((0.17, 0.5), (0.5, 0.5), (0.83, 0.5)),
}
#: How far things stand from where they should, and how much larger or smaller they are: no two pictures are the same.
SHIFT, SCALE = 0.015, 0.06
#: Pictures are drawn so many times larger, and made smaller: smooth edges.
FINER = 4
#: Of an outline, and of a ring's hole to its outside.
LINE, HOLE = 0.022, 0.55


@dataclass(frozen=True, slots=True)
class Thing:
    """One shape."""

    shape: Shape
    colour: str
    size: str


@dataclass(frozen=True, slots=True)
class Scene:
    """What a picture shows. The first thing is the main one."""

    background: str
    style: Style
    layout: Layout
    things: tuple[Thing, ...]

    @property
    def is_held_out(self) -> bool:
        """Whether it has a thing of which no model is told: one in nine of all (shape, colour, background)."""
        return any(held_out(thing, self.background) for thing in self.things)


def held_out(thing: Thing, background: str) -> bool:
    """Whether this shape in this colour on this background is left for the judge."""
    names = list(COLOURS)
    number = [*Shape].index(thing.shape) + 2 * names.index(thing.colour) + 5 * names.index(background)
    return number % 9 == 0


def scenes(seed: int, *, held_out: bool | None = False, things: int | None = None) -> Iterator[Scene]:
    """Scenes without end. ``held_out``: those for training (False), for the judge (True), or all (None).

    ``things`` fixes how many there are in each.
    """
    chance = random.Random(seed)
    while True:
        scene = _any_scene(chance, things)
        if held_out is None or scene.is_held_out == held_out:
            yield scene


def _any_scene(chance: random.Random, number: int | None) -> Scene:
    layouts = [layout for layout, places in PLACES.items() if number is None or len(places) == number]
    # The centre is what is meant when nothing is said.
    layout = chance.choices(layouts, [3 if one in (Layout.CENTRE, Layout.ROW) else 1 for one in layouts])[0]
    background = chance.choice([*COLOURS])
    count = len(PLACES[layout])
    sizes = ["small", "medium"] if count == 3 else [*SIZES]
    # No two are the same: words could not tell them apart.
    kinds = chance.sample([(shape, colour) for shape in Shape for colour in visible_on(background)], count)
    things = tuple(Thing(shape, colour, chance.choice(sizes)) for shape, colour in kinds)
    return Scene(background, chance.choice([*Style]), layout, things)


def visible_on(background: str) -> list[str]:
    """Colours that can be seen well on a background."""
    return [name for name in COLOURS if name != background and frozenset((name, background)) not in ALIKE]


def draw(scene: Scene, side: int, seed: int | None = None) -> Image.Image:
    """The scene as a square RGB picture. A seed moves and resizes things a little; None draws all as it should be."""
    chance = random.Random(seed)
    shift, scale = (0.0, 0.0) if seed is None else (SHIFT, SCALE)
    large = side * FINER
    picture = Image.new("RGB", (large, large), COLOURS[scene.background])
    for thing, (column, row) in zip(scene.things, PLACES[scene.layout], strict=True):
        x, y = column + chance.uniform(-shift, shift), row + chance.uniform(-shift, shift)
        half = SIZES[thing.size] * (1 + chance.uniform(-scale, scale))
        mask = _mask(thing.shape, scene.style, x * large, y * large, half * large, large)
        colour: Image.Image | Rgb = COLOURS[thing.colour]
        if scene.style is Style.SOFT:
            colour = _shading(COLOURS[thing.colour], x * large, y * large, half * large, large)
        picture.paste(colour, (0, 0, large, large) if isinstance(colour, tuple) else (0, 0), mask)
    return picture.resize((side, side), Image.Resampling.BOX)


def _mask(shape: Shape, style: Style, x: float, y: float, half: float, large: int) -> Image.Image:
    """White where the thing is."""
    mask = Image.new("L", (large, large))
    pen = ImageDraw.Draw(mask)
    parts = outlines(shape)
    if style is not Style.OUTLINE:
        for number, part in enumerate(parts):
            pen.polygon([(x + half * a, y + half * b) for a, b in part], fill=0 if number else 255)
        return mask
    for part in parts:
        corners = [(x + half * a, y + half * b) for a, b in part]
        pen.line([*corners, *corners[:2]], fill=255, width=round(LINE * large), joint="curve")
    return mask


def outlines(shape: Shape) -> list[list[tuple[float, float]]]:
    """Corners around a thing of half height 1 at the origin; a second line is a hole."""
    match shape:
        case Shape.CIRCLE:
            return [_round(1.0)]
        case Shape.RING:
            return [_round(1.0), _round(HOLE)]
        case Shape.SQUARE:
            return [[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]]
        case Shape.TRIANGLE:
            return [[(0.0, -1.0), (1.1, 0.9), (-1.1, 0.9)]]
        case Shape.STAR:
            radii = [1.1, 0.46] * 5
            turns = [math.pi * number / 5 for number in range(10)]
            return [[(r * math.sin(turn), -r * math.cos(turn)) for r, turn in zip(radii, turns, strict=True)]]
        case Shape.CROSS:
            arm = 0.34
            quarter = [(arm, -1.0), (arm, -arm), (1.0, -arm)]
            # Each quarter is the one before, turned.
            turned = [quarter, [(-y, x) for x, y in quarter]]
            return [[*turned[0], *turned[1], *((-x, -y) for part in turned for x, y in part)]]


def _round(radius: float) -> list[tuple[float, float]]:
    turns = [2 * math.pi * number / 96 for number in range(96)]
    return [(radius * math.cos(turn), radius * math.sin(turn)) for turn in turns]


def _shading(colour: Rgb, x: float, y: float, half: float, large: int) -> Image.Image:
    """The colour, lighter towards the upper left of the thing and darker towards its lower right."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*(channel / 255 for channel in colour))
    light, dark = (
        tuple(round(255 * channel) for channel in colorsys.hls_to_rgb(hue, level, saturation))
        for level in (min(lightness + 0.13, 0.98), max(lightness - 0.13, 0.02))
    )
    row, column = np.arange(large, dtype=np.float32) - y, np.arange(large, dtype=np.float32) - x
    depth = np.clip(0.5 + (row[:, None] + column) / (4 * half), 0, 1)
    whole = Image.fromarray((255 * depth).astype(np.uint8))
    return Image.composite(Image.new("RGB", whole.size, dark), Image.new("RGB", whole.size, light), whole)
