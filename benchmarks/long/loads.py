"""What is measured: models with random weights at real sizes, lengths of texts, and the texts themselves."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from tokenizers import Tokenizer

from benchmarks.models import BASE, MODERNBERT, NOMIC, QWEN, Sizes

# Longest texts of which several are sent at once.
MAX_SEVERAL_TOKENS: Final = 2048
SEVERAL: Final = 4
MIN_WORD_LETTERS: Final = 4


@dataclass(frozen=True, slots=True)
class LongModel:
    """A model of the benchmark.

    Attributes:
        sizes: Its sizes; the name is that of its folder.
        lengths: Numbers of tokens of its texts, special ones included.
    """

    sizes: Sizes
    lengths: tuple[int, ...]

    @property
    def name(self) -> str:
        """Its name in reports and on the command line."""
        return self.sizes.name


MODELS: Final = (
    LongModel(MODERNBERT, (300, 1024, 2048, 4096, 8192)),
    LongModel(replace(QWEN, max_tokens=8192), (300, 1024, 2048, 4096)),
    LongModel(replace(NOMIC, name="nomic-base"), (300, 1024, 2048)),
    LongModel(replace(BASE, name="bert-base", pooling="cls"), (40, 300, 512)),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Texts of one length that are embedded together.

    Attributes:
        texts: Number of texts.
        length: Tokens of each, special ones included.
    """

    texts: int
    length: int

    @property
    def name(self) -> str:
        """Its name in reports."""
        return f"{self.texts} × {self.length:,}"

    @property
    def tokens(self) -> int:
        """Tokens of all its texts."""
        return self.texts * self.length


def loads_of(model: LongModel, lengths: Sequence[int] = ()) -> list[Load]:
    """Return the loads of a model: each length alone, and several texts at once up to `MAX_SEVERAL_TOKENS`.

    Args:
        model: The model.
        lengths: Lengths instead of the model's own; those beyond its limit are left out.
    """
    chosen = [n for n in lengths or model.lengths if n <= model.sizes.max_tokens]
    several = [Load(SEVERAL, length) for length in chosen if length <= MAX_SEVERAL_TOKENS]
    return [*(Load(1, length) for length in chosen), *several]


class TextMaker:
    """Makes texts of exact numbers of tokens, no two alike.

    Args:
        tokenizer: The model's tokenizer, a WordPiece; it neither cuts nor pads.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._words = sorted(
            token
            for token in tokenizer.get_vocab()
            if token.isascii()
            and token.isalpha()
            and token.islower()
            and len(token) >= MIN_WORD_LETTERS
        )
        self._number = 0

    def text(self, length: int) -> str:
        """Return the next text: a counter, then words that are one token each.

        Raises:
            ValueError: No text has so few tokens.
        """
        self._number += 1
        counter = str(self._number)
        rest = length - len(self._tokenizer.encode(counter).ids)
        if rest < 0:
            raise ValueError(f"no text has {length} tokens")
        random = np.random.default_rng(self._number)
        words = (self._words[n] for n in random.integers(len(self._words), size=rest))
        text = " ".join((counter, *words))
        if len(self._tokenizer.encode(text).ids) != length:
            raise ValueError(f"the tokenizer splits words of its own vocabulary: {text[:80]}…")
        return text

    def texts(self, load: Load) -> list[str]:
        """Return new texts of a load."""
        return [self.text(load.length) for _ in range(load.texts)]


def chosen_models(names: str) -> Iterator[LongModel]:
    """Yield the models of a comma-separated list of names, all of them for an empty one.

    Raises:
        SystemExit: There is no model of a name.
    """
    wanted = [name for name in names.split(",") if name]
    known = {model.name: model for model in MODELS}
    for name in wanted or known:
        if name not in known:
            raise SystemExit(f"no model '{name}': {', '.join(known)}")
        yield known[name]
