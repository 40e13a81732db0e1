"""Measures what a stolen vector tells of its text, by dimensions and dtype, with two attacks.

Neither needs the model's weights. Words: a ridge regression from vectors to the words of texts, learned on texts of the
attacker's own, guesses the ten likeliest content words of unseen texts (Song and Raghunathan, CCS 2020, have stronger
attacks; this is a lower bound). Candidates: the attacker has a list of texts, one of which is right, and embeds all of
them.
"""

import argparse
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.quantization import Quantizer
from nestvec.tools.quality.variants import DTYPES, codes, unit_prefix
from numpy.typing import NDArray

WORDS: Final = 2000
GUESSES: Final = 10
TRAINED: Final = 4000
RIDGE: Final = 0.1
Matrix = NDArray[np.float32]


def texts_of(path: Path) -> list[str]:
    """Return the titles and first sentences of SciFact's abstracts."""
    with gzip.open(path / "scifact/corpus.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [f"{row['title']}. {row['text'].split('. ')[0]}" for row in rows]


def words_of(text: str) -> set[str]:
    """Return a text's words of four letters or more."""
    plain = "".join(c.lower() if c.isalpha() else " " for c in text)
    return {word for word in plain.split() if len(word) >= 4}  # noqa: PLR2004 - content words


def recovered(vectors: Matrix, texts: list[str]) -> float:
    """Return the share of the known words of unseen texts that are among ten guesses for each."""
    counts = Counter(word for text in texts[:TRAINED] for word in words_of(text))
    known = [word for word, _ in counts.most_common(WORDS)]
    index_of = {word: n for n, word in enumerate(known)}
    target = np.zeros((len(texts), WORDS), np.float32)
    for row, text in enumerate(texts):
        target[row, [index_of[word] for word in words_of(text) if word in index_of]] = 1
    mean = target[:TRAINED].mean(axis=0)
    spread = vectors[:TRAINED].std(axis=0) + 1e-6
    scaled = (vectors - vectors[:TRAINED].mean(axis=0)) / spread
    left, right = scaled[:TRAINED], target[:TRAINED] - mean
    weights = np.linalg.solve(
        left.T @ left + RIDGE * TRAINED * np.eye(left.shape[1], dtype=np.float32), left.T @ right
    )
    guessed = scaled[TRAINED:] @ weights + mean
    best = np.argpartition(-guessed, GUESSES, axis=1)[:, :GUESSES]
    hits = np.take_along_axis(target[TRAINED:], best, axis=1).sum(axis=1)
    return float((hits / np.minimum(GUESSES, np.maximum(1, target[TRAINED:].sum(axis=1)))).mean())


def identified(stored: Matrix, candidates: Matrix) -> float:
    """Return the share of vectors whose text is the nearest of all candidates, which the attacker embeds in full."""
    nearest = np.argmax(stored @ candidates[:, : stored.shape[1]].T, axis=1)
    return float((nearest == np.arange(len(stored))).mean())


async def embed(texts: list[str]) -> tuple[Matrix, Quantizer]:
    """Return full vectors of texts by the default model, and its quantizer."""
    flags = {"offline": True, "truncate": "end"}
    service = build_local_service(load_settings(flags).for_offline_tools(), NullObserver())
    try:
        parts = [
            (await service.embed(EmbedCall(texts[n : n + 256]))).vectors
            for n in range(0, len(texts), 256)
        ]
        return np.concatenate(parts), service.models.resolve("").quantizer
    finally:
        service.close()


def main() -> None:
    """Parse the arguments, run both attacks, and print a Markdown table."""
    import asyncio

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    texts = texts_of(parser.parse_args().data)
    full, quantizer = asyncio.run(embed(texts))
    print(
        "| dimensions | dtype | bytes | words recovered | found among candidates |\n|---|---|---|---|---|"
    )
    print(
        f"| none (the commonest words) | | 0 | {recovered(np.zeros_like(full[:, :1]), texts):.0%} | 0% |"
    )
    for dimensions in (384, 128, 64, 32):
        unit = unit_prefix(full, dimensions)
        for dtype in DTYPES:
            stored = codes(unit, dtype, quantizer)
            bits = np.unpackbits(stored, axis=1)[:, :dimensions] if dtype == "binary" else stored
            values = (
                bits.astype(np.float32) * 2 - 1 if dtype == "binary" else bits.astype(np.float32)
            )
            words, candidates = recovered(values, texts), identified(values, unit)
            print(
                f"| {dimensions} | {dtype} | {stored[0].nbytes} | {words:.0%} | {candidates:.0%} |"
            )


if __name__ == "__main__":
    main()
