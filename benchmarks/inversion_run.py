"""Measures what a stolen vector tells of its text, by dimensions and dtype, with two attacks.

The attacks are those of `nestvec report leakage` (`nestvec/corpus/reports/kinds/leakage.py`), here on SciFact and on
every dtype. Candidates: the attacker embeds a list of texts in full, one of which is right.
"""

import argparse
import gzip
import json
from pathlib import Path
from typing import Final

import numpy as np
from nestvec.assembly.service import build_local_service
from nestvec.config.loading import load_settings
from nestvec.corpus.reports.forms.variants import DTYPES, codes, unit_prefix
from nestvec.corpus.reports.kinds.leakage import recovered
from nestvec.engine.observer import NullObserver
from nestvec.engine.types import EmbedCall
from nestvec.engine.vectors.quantization import Quantizer
from numpy.typing import NDArray

TRAINED: Final = 4000
Matrix = NDArray[np.float32]


def texts_of(path: Path) -> list[str]:
    """Return the titles and first sentences of SciFact's abstracts."""
    with gzip.open(path / "scifact/corpus.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    return [f"{row['title']}. {row['text'].split('. ')[0]}" for row in rows]


def _words(vectors: Matrix, texts: list[str]) -> float:
    """Return the share of the known words of unseen texts that are among ten guesses for each."""
    return float(recovered(vectors, texts, TRAINED).mean())


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
        f"| none (the commonest words) | | 0 | {_words(np.zeros_like(full[:, :1]), texts):.0%} | 0% |"
    )
    for dimensions in (384, 128, 64, 32):
        unit = unit_prefix(full, dimensions)
        for dtype in DTYPES:
            stored = codes(unit, dtype, quantizer)
            bits = np.unpackbits(stored, axis=1)[:, :dimensions] if dtype == "binary" else stored
            values = (
                bits.astype(np.float32) * 2 - 1 if dtype == "binary" else bits.astype(np.float32)
            )
            words, candidates = _words(values, texts), identified(values, unit)
            print(
                f"| {dimensions} | {dtype} | {stored[0].nbytes} | {words:.0%} | {candidates:.0%} |"
            )


if __name__ == "__main__":
    main()
