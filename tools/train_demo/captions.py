"""Scenes in words: templates and synonyms, and the vocabulary they make."""

import random

from tools.train_demo.world import COLOURS, Layout, Scene, Shape, Style, Thing

SHAPES = {
    Shape.CIRCLE: ("circle", "disc"),
    Shape.SQUARE: ("square", "box"),
    Shape.TRIANGLE: ("triangle",),
    Shape.STAR: ("star",),
    Shape.RING: ("ring", "hoop"),
    Shape.CROSS: ("cross", "plus"),
}
SIZES = {"small": ("small", "little", "tiny"), "medium": ("", "medium"), "large": ("large", "big", "huge")}
PLACES = {
    Layout.CENTRE: ("", "", "in the middle", "in the centre"),
    Layout.LEFT: ("on the left", "at the left"),
    Layout.RIGHT: ("on the right", "at the right"),
    Layout.TOP: ("at the top", "on top"),
    Layout.BOTTOM: ("at the bottom",),
}
RELATIONS = {
    Layout.ABOVE: ("above", "over"),
    Layout.BELOW: ("below", "under"),
    Layout.LEFT_OF: ("to the left of", "left of"),
    Layout.RIGHT_OF: ("to the right of", "right of"),
}
BACKGROUNDS = ("on {a} {colour} background", "against {a} {colour} background", "on {colour}")
STYLES = {
    Style.FLAT: ("", "", "flat style", "flat"),
    Style.OUTLINE: ("outline", "outline style", "line drawing"),
    Style.SOFT: ("soft shading", "softly shaded", "shaded"),
}
#: Words that only templates hold.
OTHERS = {"a", "an", "and", "the", "in", "row", "on", "at", "from", "drawing", "picture", "style", "with", "background"}


def say(scene: Scene, seed: int | None = None, *, placed: bool = True) -> str:
    """The scene in words; without a seed in those that come first in each list.

    Where one thing stands is left out unless it is ``placed``; several things are told by where they stand.
    """
    chance = None if seed is None else random.Random(seed)

    def one(choices: tuple[str, ...]) -> str:
        return choices[0] if chance is None else chance.choice(choices)

    def name(thing: Thing) -> str:
        words = [word for word in (one(SIZES[thing.size]), thing.colour, one(SHAPES[thing.shape])) if word]
        return " ".join((article(words[0]), *words))

    names = [name(thing) for thing in scene.things]
    match names:
        case [alone]:
            place = one(PLACES[scene.layout]) if placed else ""
            said = " ".join(part for part in (alone, place) if part)
        case [first, second]:
            said = f"{first} {one(RELATIONS[scene.layout])} {second}"
        case _:
            said = f"{', '.join(names[:-1])} and {names[-1]} in a row"
    background = one(BACKGROUNDS).format(a=article(scene.background), colour=scene.background)
    style = one(STYLES[scene.style])
    return f"{said} {background}" + (f", {style}" if style else "")


def article(word: str) -> str:
    """What goes before it."""
    return "an" if word[0] in "aeiou" else "a"


def vocabulary() -> list[str]:
    """Every word that is ever said, in order."""
    lists = [*SHAPES.values(), *SIZES.values(), *PLACES.values(), *RELATIONS.values(), *STYLES.values(), BACKGROUNDS]
    said = {word for choices in lists for choice in choices for word in choice.split() if "{" not in word}
    return sorted(said | {*COLOURS, *OTHERS, *(shape.value for shape in Shape)})
