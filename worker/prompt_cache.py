"""Embeddings of prompts, each made once: sweeps, seeds and negative prompts ask for the same again and again."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch

#: Texts whose embeddings are kept, by stage. At SDXL's sizes in half precision one takes a third of a MiB.
MAX_KEPT = 256

Embeddings = tuple[torch.Tensor, ...]
"""Of one text, each (1, ...) on the device."""


class PromptCache:
    """The embeddings that were asked for last, of the encoders of one stage."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Embeddings] = OrderedDict()

    def encoded(
        self, texts: Sequence[Hashable], encode: Callable[[list[Hashable]], list[Embeddings]]
    ) -> list[Embeddings]:
        """The embeddings of all texts, in their order. Those that are not at hand are encoded together, each once.

        A text is all that its embeddings depend on: the words, the layer that is taken, the adapters on the encoders.
        """
        if missing := [text for text in dict.fromkeys(texts) if text not in self._kept]:
            with torch.no_grad():
                self._kept.update(zip(missing, encode(missing), strict=True))
        found = []
        for text in texts:
            self._kept.move_to_end(text)
            found.append(self._kept[text])
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return found
