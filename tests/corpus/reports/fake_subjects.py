"""Small embedders whose truth is known, for reports: words as directions, letters as directions, noise of a seed."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from nestvec.corpus.reports.frame import CountedTokens, Subject
from nestvec.engine.types import FloatArray

WIDTH = 48


@lru_cache(maxsize=100_000)
def direction(name: str, width: int = WIDTH) -> FloatArray:
    """Return a direction that belongs to a word, the same in every run."""
    seed = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")
    vector: FloatArray = np.random.default_rng(seed).standard_normal(width).astype(np.float32)
    return vector


def unit(vectors: FloatArray) -> FloatArray:
    """Return rows at unit length."""
    scaled: FloatArray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return scaled.astype(np.float32)


def bag_of_words(texts: Sequence[str], role: str | None = None) -> FloatArray:
    """Embed texts as sums of their words' directions, case aside: an altered word is another word."""
    del role
    rows = [
        np.sum([direction(word) for word in text.lower().split()] or [direction("")], axis=0)
        for text in texts
    ]
    return unit(np.array(rows, np.float32))


def noisy(base: Callable[[Sequence[str]], FloatArray], amount: float) -> Callable[..., FloatArray]:
    """Return an embedder like another one, but with noise of each text's own."""

    def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
        del role
        noise = np.stack([direction(f"noise {text}") for text in texts]) / np.sqrt(WIDTH)
        return unit(base(texts) + amount * noise.astype(np.float32))

    return embed


def of_table(vectors: Mapping[str, FloatArray]) -> Callable[..., FloatArray]:
    """Return an embedder that looks texts up."""

    def embed(texts: Sequence[str], role: str | None = None) -> FloatArray:
        del role
        return unit(np.stack([vectors[text] for text in texts]))

    return embed


def subject(embed: Callable[..., FloatArray] = bag_of_words, name: str = "fake") -> Subject:
    """Return a model under report, whose runs take a second for a thousand tokens."""

    def time_run(texts: Sequence[str]) -> CountedTokens:
        tokens = sum(len(text.split()) for text in texts)
        return CountedTokens(tokens, tokens / 1000)

    return Subject(name, f"space of {name}", embed, time_run=time_run)


def sentences(count: int, words: Sequence[str], seed: int, length: int = 8) -> list[str]:
    """Return texts of words, drawn with a seed."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(list(words), length)) for _ in range(count)]
