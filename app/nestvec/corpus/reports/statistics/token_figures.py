"""How well a model's tokenizer suits texts: unknown tokens, tokens per word, bytes per token, and what is cut off.

Source: the metrics of tokenizer studies (arXiv:2402.18376 on fewer tokens, arXiv:2502.07057 on whole words); Rényi
efficiency of order 2.5 as in arXiv:2306.16842.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from nestvec.engine.text.preparation.letters import name_word
from nestvec.engine.text.token_report import count_tokens
from nestvec.engine.text.tokenizer import Tokenizer

RENYI_ORDER: Final = 2.5
BATCH_TEXTS: Final = 256
# Above these a figure earns advice; set by what models do on the languages that they were trained for.
MAX_UNKNOWN_RATE: Final = 0.01
MAX_CUT_RATE: Final = 0.05
MAX_TOKENS_PER_WORD: Final = 2.5
# Groups of fewer texts earn no advice, unless there is only one group.
MIN_TEXTS: Final = 20
OTHER: Final = "other"
# Scripts without spaces between words, where tokens per word say nothing.
UNSPACED: Final = frozenset({"cjk", "hiragana", "katakana", "thai", "lao", "khmer", "myanmar"})


@dataclass(slots=True)
class TokenFigures:
    """Counts of the texts of one language or script.

    Attributes:
        texts: Number of texts.
        bytes: Number of their bytes in UTF-8.
        words: Number of words, which are runs of letters and digits.
        whole_words: Number of words that are one token.
        tokens: Number of tokens, special ones aside.
        unknown: Number of tokens that stand for what the vocabulary lacks; bytes of a fallback count too.
        cut: Number of texts with more tokens than the model takes.
        lengths: Number of tokens of each text, special ones included.
        ids: Number of occurrences of each token id.
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
        """Share of the tokens that are unknown."""
        return self.unknown / max(self.tokens, 1)

    @property
    def bytes_per_token(self) -> float:
        """Bytes of UTF-8 per token."""
        return self.bytes / max(self.tokens, 1)

    @property
    def tokens_per_word(self) -> float:
        """Tokens into which a word is split on average."""
        return self.tokens / max(self.words, 1)

    @property
    def whole_word_rate(self) -> float:
        """Share of the words that are one token."""
        return self.whole_words / max(self.words, 1)

    @property
    def cut_rate(self) -> float:
        """Share of the texts that are cut."""
        return self.cut / max(self.texts, 1)

    def quantile(self, share: float) -> int:
        """Return the length in tokens that a share (0 to 1) of the texts does not exceed."""
        ordered = sorted(self.lengths)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0

    def renyi_efficiency(self, vocabulary_size: int) -> float:
        """Return how evenly the vocabulary is used, from 0 to 1."""
        total = sum(self.ids.values())
        if not total or vocabulary_size < 2:  # noqa: PLR2004 - one token is always used evenly
            return 0.0
        power = math.fsum((count / total) ** RENYI_ORDER for count in self.ids.values())
        return math.log(power) / (1 - RENYI_ORDER) / math.log(vocabulary_size)

    def add(self, other: "TokenFigures") -> None:
        """Add the figures of another group."""
        for name in ("texts", "bytes", "words", "whole_words", "tokens", "unknown", "cut"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.lengths += other.lengths
        self.ids += other.ids


def measure_texts(
    texts: Iterable[tuple[str, str]], tokenizer: Tokenizer
) -> dict[str, TokenFigures]:
    """Return figures by language.

    Args:
        texts: Pairs of language and text; a text of no known language ("") is counted under its script.
        tokenizer: The model's tokenizer.
    """
    groups: dict[str, TokenFigures] = {}
    remaining = iter(texts)
    while batch := list(islice(remaining, BATCH_TEXTS)):
        _add(batch, tokenizer, groups)
    return groups


def _total(groups: Iterable[TokenFigures]) -> TokenFigures:
    """Return the figures of all groups together."""
    total = TokenFigures()
    for group in groups:
        total.add(group)
    return total


def script_of(text: str) -> str:
    """Return the script of most of a text's letters, such as "latin" or "cjk"."""
    counts = Counter(name_word(char) or OTHER for char in text if char.isalpha())
    return counts.most_common(1)[0][0] if counts else OTHER


def advice(groups: dict[str, TokenFigures], tokenizer: Tokenizer) -> list[str]:
    """Return in words what to do about bad figures; empty where all is well."""
    lines = []
    for name, figures in groups.items():
        if figures.texts < MIN_TEXTS and len(groups) > 1:
            continue
        if figures.unknown_rate > MAX_UNKNOWN_RATE:
            lines.append(
                f"{name}: {figures.unknown_rate:.1%} of tokens are unknown, so the model does not see that part of "
                "the text: choose a model trained for this language or script"
            )
        elif figures.tokens_per_word > MAX_TOKENS_PER_WORD and name not in UNSPACED:
            lines.append(
                f"{name}: a word falls into {figures.tokens_per_word:.1f} tokens on average: the model saw little of "
                "this language or field, and texts take more time and room than they need"
            )
        if figures.cut_rate > MAX_CUT_RATE:
            lines.append(
                f"{name}: {figures.cut_rate:.1%} of texts are over {tokenizer.max_tokens} tokens (99% are within "
                f"{figures.quantile(0.99)}): split them into chunks, or choose a model that takes more"
            )
    return lines


def as_rows(groups: dict[str, TokenFigures], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Return a row for each group; a last row of all texts where there are several groups."""
    rows = dict(groups)
    if len(groups) > 1:
        rows["all"] = _total(groups.values())
    return [
        {
            "language": name,
            "texts": figures.texts,
            "tokens": figures.tokens,
            "unknown_rate": figures.unknown_rate,
            "bytes_per_token": figures.bytes_per_token,
            "tokens_per_word": figures.tokens_per_word,
            "whole_word_rate": figures.whole_word_rate,
            "renyi_efficiency": figures.renyi_efficiency(tokenizer.vocabulary_size),
            "tokens_p50": figures.quantile(0.5),
            "tokens_p99": figures.quantile(0.99),
            "cut_rate": figures.cut_rate,
        }
        for name, figures in rows.items()
    ]


def _add(
    batch: Sequence[tuple[str, str]], tokenizer: Tokenizer, groups: dict[str, TokenFigures]
) -> None:
    """Count a batch of texts into their groups."""
    counted = count_tokens(tokenizer, [text for _, text in batch])
    for (language, text), counts in zip(batch, counted, strict=True):
        group = groups.setdefault(language or script_of(text), TokenFigures())
        group.texts += 1
        group.bytes += len(text.encode("utf-8", "replace"))
        group.words += counts.words
        group.whole_words += counts.whole_words
        group.tokens += len(counts.ids)
        group.unknown += counts.unknown
        length = len(counts.ids) + tokenizer.special_tokens
        group.cut += length > tokenizer.max_tokens
        group.lengths.append(length)
        group.ids.update(counts.ids)
