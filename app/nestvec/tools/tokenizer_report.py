"""How well a model's tokenizer suits texts: unknown tokens, pieces a word, bytes a token, and what is cut off.

Source: the metrics of tokenizer studies (arXiv:2402.18376 on fewer tokens, arXiv:2502.07057 on whole words); Rényi
efficiency of order 2.5 as in arXiv:2306.16842.
"""

import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from nestvec.engine.text.tokenizer import Tokenizer

RENYI_ORDER: Final = 2.5
BATCH: Final = 256
# Above (or below) these a figure is worth a word; set by what models do on the languages they were trained for.
MANY_UNKNOWN: Final = 0.01
MANY_CUT: Final = 0.05
MANY_PIECES: Final = 2.5
FEW_TEXTS: Final = 20
OTHER: Final = "other"


@dataclass(slots=True)
class TokenFigures:
    """Of the texts of one language or script.

    Attributes:
        words: Runs of letters and figures.
        whole_words: Those that are one token.
        unknown: Tokens that stand for what the vocabulary lacks; bytes of a fallback count too.
        cut: Texts of more tokens than the model takes.
        lengths: Tokens of each text, special ones included.
    """

    texts: int = 0
    bytes: int = 0
    words: int = 0
    whole_words: int = 0
    tokens: int = 0
    unknown: int = 0
    cut: int = 0
    lengths: list[int] = field(default_factory=list)
    ids: Counter[int] = field(default_factory=Counter)

    @property
    def unknown_rate(self) -> float:
        """Of the tokens."""
        return self.unknown / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        """Of UTF-8."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Pieces that a word falls into."""
        return self.tokens / max(self.words, 1)

    @property
    def whole_word_rate(self) -> float:
        """Of the words."""
        return self.whole_words / max(self.words, 1)

    @property
    def cut_rate(self) -> float:
        """Of the texts."""
        return self.cut / max(self.texts, 1)

    def quantile(self, share: float) -> int:
        """Length that so many texts do not exceed."""
        ordered = sorted(self.lengths)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0

    def renyi_efficiency(self, vocabulary_size: int) -> float:
        """How evenly the vocabulary is used, 0 … 1."""
        total = sum(self.ids.values())
        if not total or vocabulary_size < 2:  # noqa: PLR2004 - one token is always used evenly
            return 0.0
        power = math.fsum((count / total) ** RENYI_ORDER for count in self.ids.values())
        return math.log(power) / (1 - RENYI_ORDER) / math.log(vocabulary_size)

    def add(self, other: "TokenFigures") -> None:
        """Take another group's figures in."""
        for name in ("texts", "bytes", "words", "whole_words", "tokens", "unknown", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths += other.lengths
        self.ids += other.ids


def measure(texts: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> dict[str, TokenFigures]:
    """Figures by language.

    Args:
        texts: Language and text; "" for a language that is not known takes the text's script.
        tokenizer: The model's.
    """
    found: dict[str, TokenFigures] = {}
    batch: list[tuple[str, str]] = []
    for one in texts:
        batch.append(one)
        if len(batch) == BATCH:
            _add(batch, tokenizer, found)
            batch = []
    if batch:
        _add(batch, tokenizer, found)
    return found


def whole(groups: Iterable[TokenFigures]) -> TokenFigures:
    """All groups as one."""
    total = TokenFigures()
    for group in groups:
        total.add(group)
    return total


def script_of(text: str) -> str:
    """The script of most of its letters, such as "latin" or "cjk"."""
    counts = Counter(_script(sign) for sign in text if sign.isalpha())
    return counts.most_common(1)[0][0] if counts else OTHER


def advice(groups: dict[str, TokenFigures], tokenizer: Tokenizer) -> list[str]:
    """What to do about it, in words; nothing where all is well."""
    said = []
    for name, figures in groups.items():
        if figures.texts < FEW_TEXTS and len(groups) > 1:
            continue
        if figures.unknown_rate > MANY_UNKNOWN:
            said.append(
                f"{name}: {figures.unknown_rate:.1%} of tokens are unknown, so the model does not see that part of "
                "the text: choose a model trained for this language or script"
            )
        elif figures.tokens_per_word > MANY_PIECES and name not in UNSPACED:
            said.append(
                f"{name}: a word falls into {figures.tokens_per_word:.1f} tokens on average: the model saw little of "
                "this language or field, and texts take more time and room than they need"
            )
        if figures.cut_rate > MANY_CUT:
            said.append(
                f"{name}: {figures.cut_rate:.1%} of texts are over {tokenizer.max_tokens} tokens (99% are within "
                f"{figures.quantile(0.99)}): split them into chunks, or choose a model that takes more"
            )
    return said


def as_rows(groups: dict[str, TokenFigures], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """For tables and JSON; all texts together last where there are several groups."""
    every = dict(groups)
    if len(groups) > 1:
        every["all"] = whole(groups.values())
    return [
        {
            "language": name,
            "texts": one.texts,
            "tokens": one.tokens,
            "unknown_rate": one.unknown_rate,
            "bytes_per_token": one.bytes_per_token,
            "tokens_per_word": one.tokens_per_word,
            "whole_word_rate": one.whole_word_rate,
            "renyi_efficiency": one.renyi_efficiency(tokenizer.vocabulary_size),
            "tokens_p50": one.quantile(0.5),
            "tokens_p99": one.quantile(0.99),
            "cut_rate": one.cut_rate,
        }
        for name, one in every.items()
    ]


# Scripts without spaces between words, where "tokens a word" says nothing.
UNSPACED: Final = frozenset({"cjk", "hiragana", "katakana", "thai", "lao", "khmer", "myanmar"})


def _add(
    batch: Sequence[tuple[str, str]], tokenizer: Tokenizer, found: dict[str, TokenFigures]
) -> None:
    counted = tokenizer.count([text for _, text in batch])
    for (language, text), one in zip(batch, counted, strict=True):
        group = found.setdefault(language or script_of(text), TokenFigures())
        group.texts += 1
        group.bytes += len(text.encode("utf-8", "replace"))
        group.words += one.words
        group.whole_words += one.whole_words
        group.tokens += len(one.ids)
        group.unknown += one.unknown
        length = len(one.ids) + tokenizer.special_tokens
        group.cut += length > tokenizer.max_tokens
        group.lengths.append(length)
        group.ids.update(one.ids)


@lru_cache(maxsize=65_536)
def _script(sign: str) -> str:
    """First word of a character's name, which is its script's for letters."""
    return unicodedata.name(sign, OTHER).split(" ")[0].split("-")[0].lower()
