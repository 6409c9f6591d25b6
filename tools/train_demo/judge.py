"""Looks at a picture of the demo's world and says what it sees: plain image processing, no model.

The background is the colour of the picture's rim. What differs from it is taken apart into pieces that hang together,
each is compared with the outlines of all shapes, and the best match names it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from tools.train_demo.world import COLOURS, LINE, Layout, Scene, Shape, outlines

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
Mask = np.ndarray[tuple[int, ...], np.dtype[np.bool_]]

#: Pixels this far from the background's colour belong to a thing; RGB, Euclidean.
DIFFERENT = 60.0
#: Smaller pieces are dirt: fractions of the picture's area.
SMALLEST = 0.003
#: Shapes are compared at this many pixels a side.
COMPARED = 48


@dataclass(frozen=True, slots=True)
class SeenThing:
    """A piece of the picture, and what it is most like."""

    shape: Shape
    colour: str
    x: float
    y: float
    half: float
    """Place of its middle, and half of its height, as fractions of the picture's side."""
    likeness: float
    """Intersection over union with the outline of that shape, 0 to 1."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What is in a picture."""

    background: str
    things: tuple[SeenThing, ...]
    """Largest first."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What of a scene is in its picture."""

    background: bool
    """Its colour is right."""
    main: bool
    """There is a thing of the main thing's shape and colour."""
    all_things: bool
    """So there is for every thing, each another."""
    layout: bool
    """And they stand as they should."""


def look(picture: Image.Image) -> Seen:
    """What is in an RGB picture."""
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    side = pixels.shape[0]
    rim = max(side // 32, 2)
    sides = pixels[:rim], pixels[-rim:], pixels[:, :rim], pixels[:, -rim:]
    edge = np.concatenate([one.reshape(-1, 3) for one in sides])
    ground = np.median(edge, axis=0)
    different: Mask = np.linalg.norm(pixels - ground, axis=2) > DIFFERENT
    labels, _ = ndimage.label(different, structure=np.ones((3, 3)))
    pieces = dict(enumerate(ndimage.find_objects(labels), start=1))
    things = []
    for number, place in pieces.items():
        # What lies within another is part of it: the inner line of a ring, the lit side of something shaded.
        inner = [other for other, within in pieces.items() if other != number and _lies_in(within, place)]
        if any(_lies_in(place, around) for other, around in pieces.items() if other != number):
            continue
        mask: Mask = np.isin(labels[place], [number, *inner])
        if mask.sum() >= SMALLEST * different.size:
            things.append(_name(mask, pixels[place], ground, place, side))
    return Seen(nearest(ground), tuple(sorted(things, key=lambda thing: -thing.half)))


def judge(scene: Scene, picture: Image.Image) -> Verdict:
    """What of the scene is in the picture."""
    seen = look(picture)
    left = [*seen.things]
    found = []
    for thing in scene.things:
        same = [one for one in left if (one.shape, one.colour) == (thing.shape, thing.colour)]
        if same:
            left.remove(same[0])
        found.append(same[0] if same else None)
    everything = [one for one in found if one is not None]
    complete = len(everything) == len(found)
    return Verdict(
        seen.background == scene.background,
        found[0] is not None,
        complete,
        complete and stands(scene.layout, everything),
    )


def stands(layout: Layout, things: Sequence[SeenThing]) -> bool:
    """Whether things, in the order of the words, stand as a layout says."""
    xs, ys = [thing.x for thing in things], [thing.y for thing in things]
    match layout:
        case Layout.CENTRE:
            return abs(xs[0] - 0.5) < 0.12 and abs(ys[0] - 0.5) < 0.12
        case Layout.LEFT:
            return xs[0] < 0.4
        case Layout.RIGHT:
            return xs[0] > 0.6
        case Layout.TOP:
            return ys[0] < 0.4
        case Layout.BOTTOM:
            return ys[0] > 0.6
        case Layout.ABOVE:
            return ys[0] < ys[1] - 0.1
        case Layout.BELOW:
            return ys[0] > ys[1] + 0.1
        case Layout.LEFT_OF:
            return xs[0] < xs[1] - 0.1
        case Layout.RIGHT_OF:
            return xs[0] > xs[1] + 0.1
        case Layout.ROW:
            return xs == sorted(xs)


def sharpness(picture: Image.Image) -> float:
    """How far a picture's changes are gathered in its edges: root mean square over mean of all steps, from 1 on.

    A step is the Euclidean distance of two neighbouring pixels' RGB colours. Blur spreads an edge over many small
    steps, noise makes steps where no edge is, and contrast is no sharpness. Up to the number of steps, it is the
    inverse of the measure of Krishnan, Tay and Fergus 2011, "Blind Deconvolution Using a Normalized Sparsity Measure".
    """
    pixels = np.asarray(picture.convert("RGB"), np.float32)
    steps = np.concatenate([np.linalg.norm(np.diff(pixels, axis=axis), axis=2).reshape(-1) for axis in (0, 1)])
    mean = float(steps.mean())
    return float(np.sqrt(np.square(steps).mean())) / mean if mean else 1.0


def _lies_in(inner: tuple[slice, ...], outer: tuple[slice, ...]) -> bool:
    return all(o.start <= i.start and i.stop <= o.stop for i, o in zip(inner, outer, strict=True))


def _name(mask: Mask, pixels: Pixels, ground: Pixels, place: tuple[slice, ...], side: int) -> SeenThing:
    height, width = mask.shape
    # The rim of a thing is mixed with the background: where it is most different its colour is its own.
    difference = np.linalg.norm(pixels - ground, axis=2)
    own = mask & (difference >= np.quantile(difference[mask], 0.4))
    line = LINE / (height / 2 / side)
    likeness, shape = max((_likeness(mask, shape, thickness), shape) for shape in Shape for thickness in (0.0, line))
    return SeenThing(
        shape,
        nearest(np.median(pixels[own], axis=0)),
        (place[1].start + width / 2) / side,
        (place[0].start + height / 2) / side,
        height / 2 / side,
        likeness,
    )


def _likeness(mask: Mask, shape: Shape, line: float) -> float:
    """How well a piece fills a shape, or its outline of that thickness (in halves of its height); 0 to 1."""
    template, proportion = _template(shape, round(20 * line) / 20)
    seen = np.asarray(Image.fromarray(mask).resize((COMPARED, COMPARED), Image.Resampling.NEAREST))
    own = mask.shape[1] / mask.shape[0]
    squeezed = min(own / proportion, proportion / own)
    return float(np.logical_and(seen, template).sum() / np.logical_or(seen, template).sum() * squeezed)


@cache
def _template(shape: Shape, line: float) -> tuple[Mask, float]:
    """The shape, or its outline if the line has a thickness, in a box as it fills; and that box's width by height."""
    large = 8 * COMPARED
    middle, half = large / 2, large / 3
    drawn = Image.new("L", (large, large))
    pen = ImageDraw.Draw(drawn)
    for number, part in enumerate(outlines(shape)):
        corners = [(middle + half * x, middle + half * y) for x, y in part]
        if line:
            pen.line([*corners, *corners[:2]], fill=255, width=round(line * half), joint="curve")
        else:
            pen.polygon(corners, fill=0 if number else 255)
    whole = drawn.crop(drawn.getbbox())
    small = whole.resize((COMPARED, COMPARED), Image.Resampling.BOX)
    return np.asarray(small) > 127, whole.width / whole.height


def nearest(colour: Pixels) -> str:
    """The name of the colour of the world that is nearest to an RGB one."""
    return min(COLOURS, key=lambda name: float(np.linalg.norm(colour - np.array(COLOURS[name], np.float32))))
