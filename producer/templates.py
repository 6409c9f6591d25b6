"""Prompt templates: ``a {red|blue} __animal__`` stands for many prompts. The syntax is the library dynamicprompts'.

https://github.com/adieyal/dynamicprompts#syntax
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from dynamicprompts.enums import SamplingMethod
from dynamicprompts.sampling_context import SamplingContext
from dynamicprompts.wildcards import WildcardManager
from pyparsing import ParseException

#: What one template may stand for.
MAX_PROMPTS = 10_000
#: Braces in braces, where the parser can still follow.
MAX_DEPTH = 10
_WILDCARD = re.compile(r"__([\w*/.-]+?)__")


class TemplateError(ValueError):
    """A template that cannot be read, or names a list that is not there."""


class Templates:
    """Expands templates with lists of words."""

    def __init__(self, word_lists: Mapping[str, Sequence[str]]) -> None:
        """``word_lists``: what ``__name__`` stands for, by name."""
        self._names = sorted(word_lists)
        # In the order in which they were written, and not in that of the alphabet.
        self._manager = WildcardManager(root_map={"": [{name: list(words) for name, words in word_lists.items()}]})
        self._manager.sort_wildcards = False

    def all(self, template: str) -> list[str]:
        """Every prompt that the template stands for. Raises TemplateError, also if they are more than MAX_PROMPTS."""
        prompts = list(islice(self._prompts(template, SamplingMethod.COMBINATORIAL, 0), MAX_PROMPTS + 1))
        if len(prompts) > MAX_PROMPTS:
            raise TemplateError(f"stands for more than {MAX_PROMPTS:,} prompts; take templates random, or shorten it")
        return prompts

    def some(self, template: str, count: int, seed: int) -> list[str]:
        """``count`` prompts of those that the template stands for, drawn with ``seed``. Raises TemplateError."""
        return list(islice(self._prompts(template, SamplingMethod.RANDOM, seed), count))

    def _prompts(self, template: str, method: SamplingMethod, seed: int) -> Iterator[str]:
        if "{" not in template and not _WILDCARD.search(template):
            # No template. The parser would take a # for a comment, and stumble over a %.
            while True:
                yield template
                if method is SamplingMethod.COMBINATORIAL:
                    return
        self._check(template)
        context = SamplingContext(wildcard_manager=self._manager, default_sampling_method=method)
        context.rand.seed(seed)
        try:
            for result in context.sample_prompts(template, None):
                prompt = str(result)
                if not prompt.strip():
                    raise TemplateError("stands for an empty prompt too; give each choice a word")
                yield prompt
        except (ParseException, ValueError, RecursionError) as error:
            if isinstance(error, TemplateError):
                raise
            raise TemplateError(
                f"is no template that can be read: {error}; write choices as {{red|blue}} and lists as __animal__"
            ) from None

    def _check(self, template: str) -> None:
        depth = deepest = 0
        for brace in re.findall(r"[{}]", template):
            depth += 1 if brace == "{" else -1
            deepest = max(deepest, depth)
        if depth != 0:
            raise TemplateError("has braces that are not closed; write choices as {red|blue}")
        if deepest > MAX_DEPTH:
            raise TemplateError(f"has more than {MAX_DEPTH} braces in braces; write fewer")
        for name in _WILDCARD.findall(template):
            if not self._manager.get_values(name):
                known = ", ".join(self._names) or "none yet"
                raise TemplateError(f"names the list {name!r}; the lists of words are {known}")
