"""A1111's prompts in the farm's words: ``<lora:name:0.8>`` becomes the parameter ``loras``, and ``(word:1.3)`` compel's
``(word)1.3``.

Both syntaxes give every piece of the text a weight, and these stay the same. What the weights do differs a little:
A1111 scales the embeddings and restores their mean, compel leads them away from those of the empty text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dashboard.compatible.bodies import refusal

#: A pair of round brackets weights by this, square ones by its inverse.
STEP = 1.1
#: More words and signs than this are mostly more than the 75 tokens of a plain prompt.
LONG_PROMPT = 60
_TAG = re.compile(r"<(\w+):([^<>]*)>")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_WEIGHT = re.compile(rf":\s*({_NUMBER})\s*\)")
_SIGN = re.compile(rf"\\[()\[\]\\]|{_WEIGHT.pattern}|[()\[\]]|[^()\[\]\\:]+|.", re.DOTALL)
#: Signs that compel does not let be weighted, even where they are escaped.
_SIGNS = re.compile(r"=|[+-]+(?![^\s,.()\"+-])")
#: What A1111 understands and SDXL's pipelines of diffusers do not, with the remedy.
_UNKNOWN = (
    (re.compile(r"(?<!\\)\[[^\[\]]*\|[^\[\]]*\]"), "[a|b] alternates between steps, which is not possible here"),
    (
        re.compile(rf"(?<!\\)\[[^\[\]]*:\s*{_NUMBER}\s*\]"),
        "[from:to:when] changes the prompt between steps, which is not possible here",
    ),
    (re.compile(r"\bAND\b"), "AND adds prompts up, which is not possible here; write a comma"),
    (re.compile(r"\bBREAK\b"), "BREAK parts the prompt, which is not possible here; write a comma"),
)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt of A1111, taken apart."""

    field: str
    pieces: tuple[tuple[str, float], ...]
    """Texts with their weights, neighbours of equal weight in one."""
    loras: tuple[tuple[str, float], ...] = ()
    """Names with their weights."""

    @property
    def text(self) -> str:
        """The words alone."""
        return "".join(text for text, _ in self.pieces)

    @property
    def needs_compel(self) -> bool:
        """Whether it is more than a plain prompt can say: weights, or a long text."""
        return any(weight != 1 for _, weight in self.pieces) or len(re.findall(r"\w+|[^\w\s]", self.text)) > LONG_PROMPT

    def in_compel(self) -> str:
        """The prompt in compel's syntax. Raises InvalidSubmissionError for signs that mean something else there."""
        for text, weight in self.pieces:
            found = "\\" if "\\" in text else _SIGNS.search(text) if weight != 1 else None
            if found is not None:
                sign = found if isinstance(found, str) else found[0]
                raise refusal(
                    self.field, f"has {sign} in {text.strip()[:60]!r}, which cannot be weighted; leave it out"
                )
        parts = [
            _escaped(text) if weight == 1 or not text.strip() else f" ({_escaped(text.strip())}){weight:.6g} "
            for text, weight in self.pieces
        ]
        return re.sub(r"\s+", " ", "".join(parts)).strip()


def read_prompt(field: str, text: str) -> Prompt:
    """A prompt, taken apart. Raises InvalidSubmissionError for what SDXL's pipelines cannot do."""
    loras: list[tuple[str, float]] = []

    def take(tag: re.Match[str]) -> str:
        if tag[1] != "lora":
            if tag[1] in ("lyco", "hypernet"):
                raise refusal(field, f"<{tag[1]}:...> is not possible here; take a LoRA of the catalog")
            return tag[0]
        name, _, weight = tag[2].partition(":")
        try:
            loras.append((name.strip(), float(weight or 1)))
        except ValueError:
            raise refusal(field, f"{tag[0]} has more than one weight; give it one") from None
        return ""

    words = _TAG.sub(take, text)
    for pattern, told in _UNKNOWN:
        if pattern.search(words):
            raise refusal(field, told)
    return Prompt(field, _joined(_weighted(words)), tuple(loras))


def _weighted(text: str) -> Iterator[tuple[str, float]]:
    """Texts with their weights. A bracket that is never closed weights all that follows; one never opened is text."""
    pieces: list[tuple[str, float]] = []
    open_brackets: list[tuple[str, int]] = []

    def weigh(start: int, factor: float) -> None:
        pieces[start:] = [(piece, weight * factor) for piece, weight in pieces[start:]]

    for match in _SIGN.finditer(text):
        sign = match[0]
        last = open_brackets[-1][0] if open_brackets else ""
        if sign in ("(", "["):
            open_brackets.append((sign, len(pieces)))
        elif match[1] is not None and last == "(":
            weigh(open_brackets.pop()[1], float(match[1]))
        elif match[1] is not None:
            pieces.append((sign, 1.0))
        elif sign == ")" and last == "(":
            weigh(open_brackets.pop()[1], STEP)
        elif sign == "]" and last == "[":
            weigh(open_brackets.pop()[1], 1 / STEP)
        else:
            pieces.append((sign[1] if len(sign) == 2 and sign[0] == "\\" else sign, 1.0))
    for bracket, start in open_brackets:
        weigh(start, STEP if bracket == "(" else 1 / STEP)
    yield from pieces


def _joined(pieces: Iterator[tuple[str, float]]) -> tuple[tuple[str, float], ...]:
    joined: list[tuple[str, float]] = []
    for text, weight in pieces:
        if joined and abs(joined[-1][1] - weight) < 1e-9:
            joined[-1] = (joined[-1][0] + text, weight)
        else:
            joined.append((text, weight))
    return tuple(joined)


def _escaped(text: str) -> str:
    """Text that means itself to compel. The text encoders' tokenizers part signs from words as the blanks here do."""
    text = re.sub(r'([()"])', r"\\\1", text)
    return re.sub(r"(?<=[^\s+-])([+-]{2,}|[+-](?=[\s,.\\=]|$))", r" \1", text)
